"""Control groups: one interface over version 1 (a hierarchy per controller) and version 2 (one for all).

`detect()` finds out which of the two has the controllers; a `Hierarchy` makes and finds groups by a path relative to
its root, the same path in every hierarchy of version 1. Which controllers exist is probed: a limit that no controller
can enforce is an error that names it, accounting that is not there is reported as absent.

Attaching differs. Version 2 lets a process be born in its group (CLONE_INTO_CGROUP, `directory`). In version 1 a
child writes "0" into the `tasks` files itself before it does anything else (`joiners`): moving oneself as a single
thread is the one way that does not wait for a grace period of the whole machine (cgroup_procs_write_start in the
kernel's cgroup.c), which costs milliseconds for each group when the parent does it.
"""

import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kestrel.linux import syscalls

ROOT = "/sys/fs/cgroup"
WANTED = ("devices", "memory", "pids", "cpu", "cpuacct", "freezer")
"""Controllers of version 1 that every group gets; cpuset, blkio and hugetlb only when a limit asks for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """One entry of a device allow-list: kind `a`, `b` or `c`, numbers (None for all), access out of `rwm`."""

    allow: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits in the runtime-spec's units (version 1's); None leaves a limit alone, -1 lifts it.

    Bytes for memory (`swap` is memory and swap together), microseconds for `quota`, `period` and `burst`, shares from
    2 to 262144. `unified` are files of version 2 written as they are.
    """

    memory: int | None = None
    reservation: int | None = None
    swap: int | None = None
    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    burst: int | None = None
    idle: int | None = None
    cpus: str = ""
    mems: str = ""
    pids: int | None = None
    oom_kill_disable: bool = False
    io_weight: int | None = None
    throttles: tuple[tuple[str, str], ...] = ()
    """(file of version 1 such as `read_bps_device`, `MAJOR:MINOR RATE`)."""
    hugepages: tuple[tuple[str, int], ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a group uses now. A number that no controller counts is None. CPU in nanoseconds, memory in bytes."""

    cpu: int | None = None
    cpu_user: int | None = None
    cpu_system: int | None = None
    throttled: int | None = None
    memory: int | None = None
    memory_limit: int | None = None
    working_set: int | None = None
    rss: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    swap: int | None = None
    pids: int | None = None
    oom_kills: int | None = None
    io_read: int | None = None
    io_written: int | None = None


class Group(Protocol):
    """A group that exists. Its path is the same on both versions; its life: create, limit, attach, kill, remove."""

    path: str

    def joiners(self) -> list[int]:
        """Descriptors the child writes b"0" to, to join; the caller closes them. Empty on version 2."""
        ...

    def directory(self) -> int:
        """A descriptor for CLONE_INTO_CGROUP, which the caller closes; -1 on version 1."""
        ...

    def attach(self, pid: int) -> None:
        """Move a running process in. Slow on version 1."""
        ...

    def limit(self, limits: Limits) -> None:
        """Write limits. Raises OSError naming the file the kernel refused, or that no controller has it."""
        ...

    def devices(self, rules: Sequence[DeviceRule]) -> None:
        """Replace the device rules, in order, the last match winning. Denies everything before the first."""
        ...

    def stats(self) -> Stats:
        """Return the current numbers."""
        ...

    def freeze(self, frozen: bool) -> None:
        """Stop or go on with all processes; returns when it is so (waits at most a second)."""
        ...

    def pids(self) -> list[int]:
        """Return the processes in this group and below."""
        ...

    def kill(self) -> bool:
        """Send SIGKILL to every process; True when there was none."""
        ...

    def oom_kills(self) -> int:
        """Return how often the kernel killed for memory here; 0 where that is not counted."""
        ...

    def oom_watch(self) -> int:
        """Return a descriptor that becomes readable or urgent (EPOLLIN | EPOLLPRI) at OOM; -1 where there is none."""
        ...

    def remove(self) -> None:
        """Remove the group and the empty ones below it; absent ones are fine. Raises OSError EBUSY while in use."""
        ...


class Hierarchy(Protocol):
    """One of the two versions, as mounted here."""

    version: int
    controllers: frozenset[str]

    def create(self, path: str, limits: Limits | None = None) -> Group:
        """Make the group (and its parents) and return it; `limits` tells which optional controllers it needs."""
        ...

    def group(self, path: str) -> Group:
        """Return a group that was made before."""
        ...

    def children(self, path: str) -> list[str]:
        """Return the paths of the groups right below `path`."""
        ...

    def hierarchies(self, limits: Limits | None = None) -> tuple[str, ...]:
        """Return version 1's hierarchies that a group with such limits is in (`cpu,cpuacct`); empty on version 2."""
        ...


def detect(root: str = ROOT) -> Hierarchy:
    """Return the hierarchy of this machine. Raises OSError when no cgroups are mounted at `root`."""
    from kestrel.linux import cgroups_v1, cgroups_v2  # each is needed only where it is used

    if os.path.exists(f"{root}/cgroup.controllers"):
        return cgroups_v2.V2(root)
    found = cgroups_v1.controllers(root)
    if not found:
        raise OSError(errno.ENOENT, "no cgroup controllers are mounted", root)
    return cgroups_v1.V1(root, found)


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


# --- files, shared by both versions ----------------------------------------------------------------------------------


def write(path: str, value: str) -> None:
    """Write a control file; a refusal names the file and the value."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise syscalls.failure(f"write {value.strip()!r}", path, error.errno) from None


def read(path: str) -> str:
    """Read a control file whole; empty when it does not exist."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError as error:
        if error.errno == errno.ENODEV:  # the group went away while we read
            return ""
        raise
    finally:
        os.close(fd)


def number(text: str) -> int | None:
    """Return the number a one-number file holds; None for `max`, an absent file, or version 1's "no limit"."""
    text = text.strip()
    if not text.isdigit():
        return None
    value = int(text)
    return None if value >= 0x7FFFFFFFFFFFF000 else value


def table(text: str) -> dict[str, int]:
    """Return a flat keyed file (`memory.stat`, `cpu.stat`, `memory.events`) as a dict."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def send_kill(pids: Sequence[int]) -> None:
    """SIGKILL each; one that is gone is fine."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def tree(top: str) -> list[str]:
    """Return `top` and every directory below it, children first; empty when it does not exist."""
    found = []
    try:
        with os.scandir(top) as entries:
            names = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        found += tree(name)
    return [*found, top]


def remove_tree(top: str) -> None:
    """rmdir a group and those below it."""
    try:
        os.rmdir(top)  # most often it has no children
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    for directory in tree(top):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass


def checked(path: str) -> str:
    """Return a group's path without its leading slash. Raises ValueError for one that would leave the hierarchy."""
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in (".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a path of a cgroup")
    return "/".join(parts)
