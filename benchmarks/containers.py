"""Containers as people start them: from the shell, beside docker and podman."""

import subprocess
from collections.abc import Callable, Iterator

from benchmarks.bed import Bed
from benchmarks.measure import Row, command, pss, rounds

PAUSE = 0.1  # seconds between two measurements, so that nobody pays for what the one before is still removing
BACK_TO_BACK = 10
ALIVE = 10


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
    """What stays in memory beside a running container: Kestrel's shim, containerd's shim, podman's conmon."""
    image = bed.own_image()
    row = Row(f"memory of the process beside a container (PSS, {ALIVE} alive)", 1.0, "MB")
    kestrel, docker, podman = [str(bed.kestrel)], bed.docker, bed.podman
    names = [f"m{number}" for number in range(ALIVE)]
    try:
        for name in names:
            words = ["-d", f"--name={name}", "--network=none", image, "sleep", "86400"]
            command([*kestrel, "run", *words])
            command([*docker, "run", *words])
            command(bed.podman_run(*words))
        for program, process in (("kestrel", "kestrel-shim"), ("docker", "containerd-shim"), ("podman", "conmon")):
            row.times[program] = [pss(pid) for pid in _called(process)]
        yield row
    finally:
        for client in (kestrel, docker, podman):
            subprocess.run([*client, "rm", "-f", *names], capture_output=True)


def _called(name: str) -> list[int]:
    """Processes of that name in our own namespace (a name has 15 characters at most, `man 5 proc`, comm)."""
    done = subprocess.run(["pgrep", "-x", name[:15]], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]
