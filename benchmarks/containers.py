"""Containers as people start them: from the shell, beside docker and podman."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bed import Bed
from benchmarks.measure import Row, command, output, pss, rounds
from kestrel.testing.instance import children, parent

PAUSE = 0.1  # seconds between two measurements, so that nobody pays for what the one before is still removing
BACK_TO_BACK = 10
ALIVE = 10
REST = 2.0  # seconds without a word, after which a shim rests


def run(bed: Bed) -> Iterator[Row]:
    """`run --rm IMAGE true`, with a bridge network, without network, and one after the other."""
    image = bed.own_image()
    for name, network, budget in (("bridge network", "bridge", 60.0), ("without network", "none", 45.0)):
        programs = _runs(bed, image, network)
        row = Row(f"`run --rm IMAGE true` from the shell, {name}", budget)
        yield rounds(row, programs, bed.count(20), warmup=2, pause=PAUSE)
    row = Row(f"the same with bridge, each of {BACK_TO_BACK} one right after the other")
    programs = {name: _repeated(once) for name, once in _runs(bed, image, "bridge").items()}
    yield rounds(row, programs, bed.count(5), pause=PAUSE)


def _runs(bed: Bed, image: str, network: str) -> dict[str, Callable[[], float]]:
    words = ["--rm", f"--network={network}", image, "true"]
    kestrel = [str(bed.kestrel), "run", *words]
    docker = [*bed.docker, "run", *words]
    podman = bed.podman_run(*words)
    return {
        "kestrel": lambda: command(kestrel),
        "docker": lambda: command(docker),
        "podman": lambda: command(podman),
    }


def _repeated(once: Callable[[], float]) -> Callable[[], float]:
    return lambda: sum(once() for _ in range(BACK_TO_BACK)) / BACK_TO_BACK


def exec_(bed: Bed) -> Iterator[Row]:
    """`exec` in a container that runs."""
    image = bed.own_image()
    words = ["-d", "--name=long", "--network=none", image, "sleep", "86400"]
    kestrel, docker, podman = [str(bed.kestrel)], bed.docker, bed.podman
    command([*kestrel, "run", *words])
    command([*docker, "run", *words])
    command(bed.podman_run(*words))
    programs: dict[str, Callable[[], float]] = {
        "kestrel": lambda: command([*kestrel, "exec", "long", "true"]),
        "docker": lambda: command([*docker, "exec", "long", "true"]),
        "podman": lambda: command([*podman, "exec", "long", "true"]),
    }
    try:
        yield rounds(Row("`exec` from the shell into a running container", 40.0), programs, bed.count(20), pause=PAUSE)
    finally:
        for client in (kestrel, docker, podman):
            subprocess.run([*client, "rm", "-f", "long"], capture_output=True)


def memory(bed: Bed) -> Iterator[Row]:
    """What stays in memory beside a running container: Kestrel's keeper, containerd's shim, podman's conmon.

    Nobody talks to the containers. Kestrel's has a shim too while somebody does: that is a row of its own.
    """
    image = bed.own_image()
    row = Row(f"memory of the process beside a container (PSS, {ALIVE} alive)", 1.0, "MB")
    busy = Row("the same while it is talked to (one of them)", unit="MB")
    kestrel, docker, podman = [str(bed.kestrel)], bed.docker, bed.podman
    names = [f"m{number}" for number in range(ALIVE)]
    try:
        for name in names:
            words = ["-d", f"--name={name}", "--network=none", image, "sleep", "86400"]
            command([*kestrel, "run", *words])
            command([*docker, "run", *words])
            command(bed.podman_run(*words))
        time.sleep(REST)
        row.times["kestrel"] = [beside(bed, name) for name in names]
        for program, process in (("docker", "containerd-shim"), ("podman", "conmon")):
            row.times[program] = [pss(pid) for pid in _called(process)]
        yield row
        for name in names:
            command([*kestrel, "exec", name, "true"])
            busy.times.setdefault("kestrel", []).append(beside(bed, name))
        yield busy
    finally:
        for client in (kestrel, docker, podman):
            subprocess.run([*client, "rm", "-f", *names], capture_output=True)


def beside(bed: Bed, container: str) -> float:
    """Return the PSS of Kestrel's processes for a container: its first one's parent, and the shim if there is one."""
    first = json.loads(output([str(bed.kestrel), "inspect", container]))[0]["pid"]
    keeper = parent(first)
    shims = [pid for pid in children(keeper) if Path(f"/proc/{pid}/comm").read_text() == "kestrel-shim\n"]
    return pss(keeper) + sum(map(pss, shims))


def _called(name: str) -> list[int]:
    """Processes of that name in our own namespace (a name has 15 characters at most, `man 5 proc`, comm)."""
    done = subprocess.run(["pgrep", "-x", name[:15]], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]
