"""What processes hold of the machine, in numbers that must not grow with how much was done."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def holdings(processes: Iterable[int]) -> dict[str, int]:
    """Return what these processes hold together: descriptors, threads, children, links and mounts they see."""
    found = dict.fromkeys(("descriptors", "threads", "children", "mounts", "links"), 0)
    for pid in processes:
        found["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
        threads = os.listdir(f"/proc/{pid}/task")
        found["threads"] += len(threads)
        found["children"] += sum(len(Path(f"/proc/{pid}/task/{t}/children").read_text().split()) for t in threads)
        found["mounts"] += len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        found["links"] += len(Path(f"/proc/{pid}/net/dev").read_text().splitlines())
    return found


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each number has grown; what has not is left out."""
    return {name: after[name] - number for name, number in before.items() if after[name] > number}


def unshared(pid: int) -> int:
    """Return the bytes of a process's memory that it has written to (`man 5 proc`, smaps_rollup, Anonymous)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))
