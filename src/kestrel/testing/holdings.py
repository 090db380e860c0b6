"""What processes hold of the machine, in numbers that must not grow with how much was done."""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from kestrel.linux import cgroups


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


def groups_called(names: str) -> set[str]:
    """Return the names of control groups that match an expression, wherever they are."""
    return {Path(top).name for top, _, _ in os.walk(cgroups.ROOT) if re.fullmatch(names, Path(top).name)}


def remove_group(name: str) -> bool:
    """Kill what is in a control group and remove it, and what programs make of that name elsewhere; say if all is gone.

    runc puts it below our own group too where its caller is in one (memory of version 1), and podman makes directories
    for controllers that are not mounted.
    """
    with suppress(OSError):  # what lives in one now is somebody else's
        cgroups.destroy(name)
    for top, _, files in os.walk(cgroups.ROOT, topdown=False):
        for path in (*files, "") if name in Path(top).parts else ():
            with suppress(OSError):  # files of a group that is one go with it, and only so
                os.remove(f"{top}/{path}") if path else os.rmdir(top)
    return not groups_called(re.escape(name))
