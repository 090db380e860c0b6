"""The same tests on another kernel: cgroup v2 alone, and the last Debian release's Linux, in an emulated machine.

Every test of the guest that fails is a failure of its own here, by name. It runs again by hand with
`python -m kestrel.testing.guest NAME...`.
"""

from pathlib import Path

import pytest

from kestrel.base.errors import Unavailable
from kestrel.testing.guest import Report, run

CHECKOUT = Path(__file__).parents[2]
COMMAND = "tests/integration/runtime/test_runtime_command.py::"
RUN = "tests/integration/test_cli_run.py::"
TESTS = [
    "tests/unit/linux",
    "tests/integration/test_mounts.py",
    "tests/integration/test_network.py",
    "tests/integration/test_store_snapshots.py::TestOverlay",
    "tests/integration/runtime/test_cgroups_v2.py",
    "tests/integration/runtime/test_runtime_inside.py",
    "tests/integration/runtime/test_runtime_life.py",
    "tests/integration/runtime/test_runtime_network_devices.py::test_a_device_moves_into_a_namespace_that_exists_and_stays_there",
    "tests/integration/runtime/test_runtime_users.py",
    "tests/integration/runtime/test_runtime_streams.py::test_exec_joins_every_namespace_the_group_and_the_confinement",
    f"{COMMAND}test_a_container_goes_through_its_life",
    f"{COMMAND}test_pause_resume_update_and_events",
    f"{COMMAND}test_a_time_namespace_has_its_offsets",
    f"{RUN}test_output_goes_to_its_own_streams_and_nothing_is_added",
    f"{RUN}test_another_container_is_found_by_name_and_forgotten_when_it_ends",
    f"{RUN}test_privileged_has_every_right_of_the_hosts_root",
]
"""What the kernel decides, and a few of the whole platform. The rest is the same anywhere, and emulation is slow."""

SKIPPED = {
    "test_nothing_is_allowed_that_the_peers_refuse_but_for_known_reasons": "compares with files of other programs",
    "test_layers_as_an_index_over_a_tar_are_mapped_too": "Linux mounts EROFS from files since 6.12",
    "test_an_rlimit_that_cannot_be_raised_is_held_and_said": "root may raise limits in the guest",
}
"""Tests that may be skipped there, and why."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def report() -> Report:
    try:
        # Shims that never rest are the same anywhere.
        return run([*TESTS, "-k", "not awake"], checkout=CHECKOUT, timeout=840)
    except Unavailable as error:
        pytest.skip(f"NO GUEST, so neither cgroup v2 nor an older kernel is tested: {error}")


def test_every_test_passes_in_the_guest(report: Report, subtests: pytest.Subtests) -> None:
    for failure in report.failures:
        with subtests.test(failure.name):
            pytest.fail(f"{failure.outcome} in the guest, on Linux {report.release}\n{failure.text}", pytrace=False)
    assert report.code in (0, 1), "pytest itself failed in the guest"


def test_the_guest_ran_all_of_them_and_skipped_only_what_it_must(report: Report) -> None:
    assert len(report.of("passed")) > 200
    assert any("test_cgroups_v2.py" in outcome.name for outcome in report.of("passed"))
    surprising = {
        outcome.name: outcome.text
        for outcome in report.of("skipped")
        if outcome.name.rpartition("::")[2].partition("[")[0] not in SKIPPED
    }
    assert surprising == {}


def test_the_guest_s_kernel_is_an_older_one(report: Report) -> None:
    assert tuple(int(part) for part in report.release.split(".")[:2]) < (6, 5)
