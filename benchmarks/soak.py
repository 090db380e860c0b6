"""Many containers: one after another, and alive at once. Nothing may grow with their number but what they need.

Not part of the whole table, since it takes minutes: `./dev soak`.
"""

import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bed import Bed, daemon_pid
from benchmarks.containers import REST, beside
from benchmarks.measure import Row, command
from kestrel.testing.holdings import growth, holdings, unshared

IN_ALL, ALIVE = 500, 200
WARMUP = 20  # the daemon's threads and caches come with use
EACH = 0.2  # of the containers: how many the first and the last are


def soak(bed: Bed) -> Iterator[Row]:
    """Start containers one after another, then many at once, and look at what has grown."""
    image = bed.own_image()
    run = [str(bed.kestrel), "run", "--rm", image, "true"]
    daemon = daemon_pid()
    zygote = _child(daemon, "kestrel-zygote")
    for _ in range(WARMUP):
        command(run)
    before, memory = holdings([daemon, zygote]), unshared(zygote)
    count = bed.count(IN_ALL)
    yield _change(
        f"start of {count} containers one after another: the last to the first", [command(run) for _ in range(count)]
    )
    yield _grown("descriptors, threads, children, mounts, links after them", growth(before, holdings([daemon, zygote])))
    yield Row("memory of the zygote more after them", 0.2, "MB", times={"kestrel": [unshared(zygote) - memory]})
    yield from _alive(bed, image, daemon, zygote)
    yield _grown("the same after these were removed", growth(before, holdings([daemon, zygote])))


def _alive(bed: Bed, image: str, daemon: int, zygote: int) -> Iterator[Row]:
    count = bed.count(ALIVE)
    names = [f"soak{number}" for number in range(count)]
    kestrel = str(bed.kestrel)
    before = holdings([daemon, zygote])
    try:
        times = [command([kestrel, "run", "-d", f"--name={name}", image, "sleep", "86400"]) for name in names]
        yield _change(f"start of {count} containers that stay: the last to the first", times)
        found = growth(before, holdings([daemon, zygote]))
        yield Row(
            "descriptors of the daemon for each of them", unit="", times={"kestrel": [found["descriptors"] / count]}
        )
        yield _grown(
            "threads and mounts for all of them", {k: v for k, v in found.items() if k in ("threads", "mounts")}
        )
        time.sleep(REST)
        row = Row(f"memory of the process beside each of them (PSS, {count} alive)", 1.0, "MB")
        row.times["kestrel"] = [beside(bed, name) for name in names]
        yield row
    finally:
        subprocess.run([kestrel, "rm", "-f", *names], capture_output=True)


def _change(name: str, times: list[float]) -> Row:
    part = int(len(times) * EACH)
    change = statistics.median(times[-part:]) / statistics.median(times[:part])
    return Row(name, 1.2, "×", times={"kestrel": [change]})


def _grown(name: str, found: dict[str, int]) -> Row:
    note = ", ".join(f"{number} {what}" for what, number in found.items())
    return Row(f"{name}: more than before", 0, "", times={"kestrel": [float(sum(found.values()))]}, note=note)


def _child(pid: int, name: str) -> int:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == name:
                return int(child)
    raise RuntimeError(f"process {pid} has no child {name}")
