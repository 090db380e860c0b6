"""The control groups of this machine: which version has the controllers, and what is done to a group by its path."""

import errno
import time

from kestrel.linux.cgroups.files import exists
from kestrel.linux.cgroups.values import Hierarchy

ROOT = "/sys/fs/cgroup"


def detect(root: str = ROOT) -> Hierarchy:
    """Return the hierarchy of this machine. Raises OSError when no cgroups are mounted at `root`."""
    if exists(f"{root}/cgroup.controllers"):
        from kestrel.linux.cgroups import v2  # each is needed only where it is used

        return v2.V2(root)
    from kestrel.linux.cgroups import v1

    found = v1.controllers(root)
    if not found:
        raise OSError(errno.ENOENT, "no cgroup controllers are mounted", root)
    return v1.V1(root, found)


def kill(path: str, *, hierarchy: Hierarchy | None = None, timeout: float = 5.0) -> bool:
    """Kill everything in the group at `path` and below, and wait until it is empty; False when time ran out."""
    group = (hierarchy or detect()).group(path)
    due = time.monotonic() + timeout
    while not group.kill():
        if time.monotonic() > due:
            return False
        time.sleep(0.002)
    return True


def remove(path: str, *, hierarchy: Hierarchy | None = None, timeout: float = 2.0) -> None:
    """Remove the group at `path` and everything below it, waiting a little for what is still dying."""
    group = (hierarchy or detect()).group(path)
    due = time.monotonic() + timeout
    while True:
        try:
            return group.remove()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > due:
                raise
            time.sleep(0.002)


def destroy(path: str) -> None:
    """Kill everything in the group at `path` and below, then remove it. An absent one, or no cgroups, is fine."""
    try:
        hierarchy = detect()
    except OSError:
        return
    kill(path, hierarchy=hierarchy)
    remove(path, hierarchy=hierarchy)


def children(path: str, *, depth: int = 1) -> list[str]:
    """Return the paths of the groups exactly `depth` levels below `path`, in any hierarchy."""
    try:
        hierarchy = detect()
    except OSError:
        return []
    found = [path]
    for _ in range(depth):
        found = [child for group in found for child in hierarchy.children(group)]
    return found
