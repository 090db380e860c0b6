"""Many containers, one after another and at once: nothing grows with their number. `./dev soak` does more of it."""

import os

import pytest

from kestrel.testing.holdings import growth, holdings
from kestrel.testing.instance import Instance, wait_until

pytestmark = pytest.mark.root

ONE_BY_ONE, ALIVE = 20, 12


def test_what_the_processes_hold_does_not_grow_with_the_number_of_containers(own_platform: Instance) -> None:
    kestrel = own_platform

    def held() -> dict[str, int]:
        return holdings([kestrel.daemon(), kestrel.zygote()])

    def files() -> int:
        return sum(len(names) for top in (kestrel.root, kestrel.run_directory) for _, _, names in os.walk(top))

    def run() -> None:
        assert kestrel("run", "--rm", "-p", "80", "box", "echo", "hi").out == "hi\n"

    for _ in range(8):  # threads and caches come with use
        run()
    wait_until(lambda: kestrel("ps", "-aq").out == "")
    before, stored, groups = held(), files(), kestrel.cgroups()
    for _ in range(ONE_BY_ONE):
        run()
    names = [f"c{number}" for number in range(ALIVE)]
    for name in names:
        kestrel("run", "-d", "--name", name, "box", "sleep", "1000")
    alive = growth(before, held())
    assert alive["descriptors"] <= 3 * ALIVE + 2  # of a shim: the connection, its network, the process itself
    assert "mounts" not in alive
    kestrel("rm", "-f", *names)
    wait_until(lambda: growth(before, held()) == {})
    assert files() <= stored
    assert kestrel.links() == [f"{kestrel.name}0"]
    assert kestrel.cgroups() == groups
