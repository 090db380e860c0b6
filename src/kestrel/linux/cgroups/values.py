"""What groups are made of, whatever their version: limits, numbers, device rules, and the two interfaces.

`Hierarchy` and `Group` say what version 1 (`v1.py`) and version 2 (`v2.py`) both do.
"""

from __future__ import annotations

import os

from kestrel.base.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol
else:
    Protocol = object


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
    swappiness: int | None = None
    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    burst: int | None = None
    idle: int | None = None
    cpus: str = ""
    mems: str = ""
    pids: int | None = None
    oom_kill_disable: bool = False
    io_weight: int | None = None
    io_weights: tuple[str, ...] = ()
    """`MAJOR:MINOR WEIGHT` of single devices, from 10 to 1000."""
    throttles: tuple[tuple[str, str], ...] = ()
    """(file of version 1 such as `read_bps_device`, `MAJOR:MINOR RATE`)."""
    hugepages: tuple[tuple[str, int], ...] = ()
    rdma: tuple[str, ...] = ()
    """`DEVICE hca_handle=NUMBER hca_object=NUMBER`."""
    net_class: int | None = None
    net_priorities: tuple[str, ...] = ()
    """`INTERFACE PRIORITY`. Version 2 has neither this nor `net_class`: there a firewall tells groups apart."""
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


@dataclass(frozen=True, slots=True)
class OomWatch:
    """A descriptor that tells of OOM. The caller waits for it, takes the news, and closes it."""

    fd: int
    urgent: bool
    """Wait for EPOLLPRI instead of EPOLLIN: this is a control file, and those are readable always."""

    def take(self) -> None:
        """Make it silent until the next event. Raises OSError when the group has gone."""
        if self.urgent:
            os.pread(self.fd, 4096, 0)
        else:
            os.read(self.fd, 8)


class Group(Protocol):
    """A group that exists. Its path is the same on both versions; its life: create, limit, attach, kill, remove."""

    path: str

    def within(self, below: Mapping[str, str]) -> Group:
        """Return what is joined instead: groups below this one, by controller, "" for all that are not named.

        Raises ValueError for a controller that is not here, or a path that leads out.
        """

    def joiners(self) -> list[int]:
        """Descriptors the child writes b"0" to, to join; the caller closes them. Empty on version 2."""

    def directory(self) -> int:
        """A descriptor for CLONE_INTO_CGROUP, which the caller closes; -1 where version 2 does not have the group."""

    def attach(self, pid: int) -> None:
        """Move a running process in. Slow on version 1."""

    def limit(self, limits: Limits) -> None:
        """Write limits. Raises OSError naming the file the kernel refused, or that no controller has it."""

    def devices(self, rules: Sequence[DeviceRule]) -> None:
        """Replace the device rules, in order, the last match winning. Denies everything before the first."""

    def stats(self) -> Stats:
        """Return the current numbers."""

    def freeze(self, frozen: bool) -> None:
        """Stop or go on with all processes; returns when it is so (waits at most a second)."""

    def pids(self) -> list[int]:
        """Return the processes in this group and below."""

    def kill(self) -> bool:
        """Send SIGKILL to every process; True when there was none."""

    def oom_kills(self) -> int:
        """Return how often the kernel killed for memory here; 0 where that is not counted."""

    def oom_watch(self) -> OomWatch | None:
        """Return what becomes ready at OOM; None where nothing does."""

    def remove(self) -> None:
        """Remove the group and the empty ones below it; absent ones are fine. Raises OSError EBUSY while in use."""


class Hierarchy(Protocol):
    """One of the two versions, as mounted here."""

    version: int
    controllers: frozenset[str]

    def create(self, path: str, limits: Limits | None = None, *, everywhere: bool = False) -> Group:
        """Make the group (and its parents) and return it.

        `limits` tells which optional hierarchies of version 1 it needs; `everywhere` asks for all that are mounted.
        """

    def group(self, path: str) -> Group:
        """Return a group that was made before."""

    def children(self, path: str) -> list[str]:
        """Return the paths of the groups right below `path`."""

    def hierarchies(self, limits: Limits | None = None, *, everywhere: bool = False) -> tuple[str, ...]:
        """Return version 1's hierarchies that such a group is in (`cpu,cpuacct`); empty on version 2."""
