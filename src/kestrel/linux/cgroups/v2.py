"""Control groups, version 2: one hierarchy (Documentation/admin-guide/cgroup-v2.rst).

Limits arrive in version 1's units and are converted as the runtime-spec's implementations agreed to
(kubernetes KEP-2254 for CPU shares). Devices are allowed by an eBPF program (`device_filter.py`).

A group either has processes or hands controllers down ("no internal processes"); only the root of the machine may do
both. Where the root we see is another group, as in a container, its processes are moved into a leaf of it first.
"""

from __future__ import annotations

import errno
import math
import os
import time

from kestrel.base.values import replace
from kestrel.linux.cgroups.files import checked, exists, number, read, remove_tree, send_kill, table, tree, write
from kestrel.linux.cgroups.values import DeviceRule, Group, Limits, OomWatch, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAF = "init"
"""Where processes of the root go when it must be empty."""


class V2:
    """Version 2 as mounted here."""

    version = 2

    def __init__(self, root: str) -> None:
        self.root = root
        # What version 1 has a controller for, and version 2 without one: eBPF programs, and cgroup.freeze.
        self.controllers = frozenset(read(f"{root}/cgroup.controllers").split()) | {"devices", "freezer"}

    def create(self, path: str, limits: Limits | None = None, *, everywhere: bool = False) -> Group:  # noqa: ARG002 - version 1 needs to know
        """Make the group, enabling every controller on the way down."""
        path = checked(path)
        parts = path.split("/")
        parent = self.root
        for part in parts:
            self._enable(parent)
            parent = f"{parent}/{part}"
            try:
                os.mkdir(parent, 0o755)
            except FileExistsError:
                pass
        return V2Group(self, path)

    def group(self, path: str) -> Group:
        """Return the group of that path."""
        return V2Group(self, checked(path))

    def children(self, path: str) -> list[str]:
        """Return the paths right below."""
        path = checked(path)
        try:
            with os.scandir(f"{self.root}/{path}") as entries:
                return [f"{path}/{entry.name}" for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []

    def hierarchies(self, limits: Limits | None = None, *, everywhere: bool = False) -> tuple[str, ...]:  # noqa: ARG002 - as above
        """There is one hierarchy, and it has no name."""
        return ()

    def _enable(self, directory: str) -> None:
        """Hand every controller down to the children; one the kernel refuses here is missed where it is used."""
        enabled = read(f"{directory}/cgroup.subtree_control").split()
        missing = [name for name in read(f"{directory}/cgroup.controllers").split() if name not in enabled]
        if not missing:
            return
        control = f"{directory}/cgroup.subtree_control"
        try:
            write(control, " ".join(f"+{name}" for name in missing))
            return
        except OSError as error:
            if error.errno == errno.EBUSY and directory == self.root:
                self._vacate()
        for name in missing:  # all or nothing it was; what can be had is had
            try:
                write(control, f"+{name}")
            except OSError:
                pass

    def _vacate(self) -> None:
        """Move the processes of the root into a leaf, the one that other runtimes in a container use too."""
        leaf = f"{self.root}/{LEAF}"
        try:
            os.mkdir(leaf, 0o755)
        except FileExistsError:
            pass
        for pid in read(f"{self.root}/cgroup.procs").split():
            try:
                write(f"{leaf}/cgroup.procs", pid)
            except OSError:
                pass  # it has ended, or is a thread of the kernel


class V2Group:
    """A group of version 2."""

    def __init__(self, hierarchy: V2, path: str) -> None:
        self.path = path
        self._hierarchy = hierarchy
        self._top = f"{hierarchy.root}/{path}"

    def within(self, below: Mapping[str, str]) -> Group:
        """Return the group below this one: there is one hierarchy, so one path and no controllers."""
        if set(below) - {""}:
            raise ValueError(f"unknown controller {next(name for name in below if name)}: version 2 has one hierarchy")
        return V2Group(self._hierarchy, f"{self.path}/{below['']}".rstrip("/"))

    def joiners(self) -> list[int]:
        """Not needed: processes are born in the group."""
        return []

    def directory(self) -> int:
        """Open the directory for CLONE_INTO_CGROUP."""
        return os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def attach(self, pid: int) -> None:
        """Move a process by its number."""
        write(f"{self._top}/cgroup.procs", str(pid))

    def limit(self, limits: Limits) -> None:
        """Convert and write what is given."""
        if limits.swap is not None and limits.memory is None:
            limits = replace(limits, memory=number(read(f"{self._top}/memory.max")))
        if limits.realtime_runtime or limits.realtime_period:
            raise OSError(errno.ENOTSUP, "version 2 has no limits of real time, cannot set", "cpu.rt_runtime_us")
        for name, value in converted(limits):
            if name == "io.weight" and limits.io_weight is not None:
                self._weigh(limits.io_weight, value)
            else:
                self._write(name, value)

    def _write(self, name: str, value: str) -> None:
        path = f"{self._top}/{name}"
        if "/" in name or not exists(path):
            controller = name.partition(".")[0]
            raise OSError(errno.ENOTSUP, f"the {controller} controller is not available here, cannot set", name)
        for line in value.splitlines():  # a file with a line per device takes one line at a time
            write(path, line)

    def _weigh(self, weight: int, converted: str) -> None:
        """Which of the two files counts depends on each device's scheduler: BFQ has its own, in version 1's units."""
        if exists(f"{self._top}/io.bfq.weight"):
            self._write("io.bfq.weight", str(weight))
            if not exists(f"{self._top}/io.weight"):
                return
        self._write("io.weight", converted)

    def devices(self, rules: Sequence[DeviceRule]) -> None:
        """Attach an eBPF program made of the rules."""
        from kestrel.linux.cgroups import device_filter

        device_filter.replace(self._top, rules)

    def stats(self) -> Stats:
        """Read memory, CPU, pids and I/O."""
        memory = table(read(f"{self._top}/memory.stat"))
        usage = number(read(f"{self._top}/memory.current"))
        cpu = {key: value * 1000 for key, value in table(read(f"{self._top}/cpu.stat")).items()}
        io = self._io()
        return Stats(
            cpu=cpu.get("usage_usec"),
            cpu_user=cpu.get("user_usec"),
            cpu_system=cpu.get("system_usec"),
            throttled=cpu.get("throttled_usec"),
            memory=usage,
            memory_limit=number(read(f"{self._top}/memory.max")),
            working_set=None if usage is None else max(0, usage - memory.get("inactive_file", 0)),
            rss=memory.get("anon"),
            page_faults=memory.get("pgfault"),
            major_page_faults=memory.get("pgmajfault"),
            swap=number(read(f"{self._top}/memory.swap.current")),
            pids=number(read(f"{self._top}/pids.current")),
            oom_kills=self.oom_kills(),
            io_read=io.get("rbytes"),
            io_written=io.get("wbytes"),
        )

    def _io(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for line in read(f"{self._top}/io.stat").splitlines():
            for pair in line.split()[1:]:
                key, _, value = pair.partition("=")
                if value.isdigit():
                    totals[key] = totals.get(key, 0) + int(value)
        return totals

    def freeze(self, frozen: bool) -> None:
        """Write cgroup.freeze and wait until cgroup.events agrees."""
        write(f"{self._top}/cgroup.freeze", "1" if frozen else "0")
        due = time.monotonic() + 1
        while table(read(f"{self._top}/cgroup.events")).get("frozen") != int(frozen):
            if time.monotonic() > due:
                raise TimeoutError(errno.ETIMEDOUT, "processes did not freeze or thaw", self._top)
            time.sleep(0.001)

    def pids(self) -> list[int]:
        """Read cgroup.procs here and below."""
        found: list[int] = []
        for group in tree(self._top):
            try:
                found += [int(pid) for pid in read(f"{group}/cgroup.procs").split()]
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:  # a threaded group: its processes are listed above it
                    raise
        return found

    def kill(self) -> bool:
        """cgroup.kill (since Linux 5.14), or one by one."""
        if not table(read(f"{self._top}/cgroup.events")).get("populated"):
            return True
        try:
            write(f"{self._top}/cgroup.kill", "1")
        except OSError:
            send_kill(self.pids())
        return False

    def oom_kills(self) -> int:
        """`oom_kill` of memory.events."""
        return table(read(f"{self._top}/memory.events")).get("oom_kill", 0)

    def oom_watch(self) -> OomWatch | None:
        """memory.events itself: a changed file of the hierarchy is reported as EPOLLPRI."""
        try:
            fd = os.open(f"{self._top}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        watch = OomWatch(fd, urgent=True)
        watch.take()  # reading arms the notification
        return watch

    def remove(self) -> None:
        """rmdir, children first."""
        remove_tree(self._top)


def converted(limits: Limits) -> list[tuple[str, str]]:
    """Return the files of version 2 and their values for limits in version 1's units, in the order to be written."""
    values = {
        "memory.max": _or_max(limits.memory),
        "memory.low": _or_max(limits.reservation),
        "memory.swap.max": _swap(limits),
        "cpu.weight": str(weight(limits.shares)) if limits.shares else None,
        "cpu.max": _cpu_max(limits),
        "cpu.max.burst": None if limits.burst is None else str(limits.burst),
        "cpu.idle": _or_max(limits.idle),
        "cpuset.cpus": limits.cpus or None,
        "cpuset.mems": limits.mems or None,
        "pids.max": _or_max(limits.pids),
        "io.weight": None if limits.io_weight is None else f"default {1 + (limits.io_weight - 10) * 9999 // 990}",
    }
    found = [(name, value) for name, value in values.items() if value is not None]
    for name, text in limits.throttles:
        device, _, rate = text.partition(" ")
        found.append(("io.max", f"{device} {_THROTTLES[name]}={rate if int(rate) else 'max'}"))
    found += [("io.bfq.weight", value) for value in limits.io_weights]
    found += [(f"hugetlb.{size}.max", str(value)) for size, value in limits.hugepages]
    found += [("rdma.max", value) for value in limits.rdma]
    if limits.net_class is not None or limits.net_priorities:
        raise OSError(errno.ENOTSUP, "version 2 of control groups does not mark packets", "net_cls")
    found += sorted(limits.unified.items())
    return found


_THROTTLES = {
    "read_bps_device": "rbps",
    "write_bps_device": "wbps",
    "read_iops_device": "riops",
    "write_iops_device": "wiops",
}


def _swap(limits: Limits) -> str | None:
    """Version 1 limits memory and swap together, version 2 swap alone."""
    if limits.swap is None:
        return "max" if limits.memory == -1 else None  # no limit of memory makes one on the sum meaningless
    if limits.swap == -1:
        return "max"
    if limits.memory is None or limits.memory < 0:
        raise OSError(errno.EINVAL, "a limit of memory and swap together needs one of memory", "memory.swap.max")
    if limits.swap < limits.memory:
        raise OSError(errno.EINVAL, "the limit of memory and swap together is below that of memory", "memory.swap.max")
    return str(limits.swap - limits.memory)


def _cpu_max(limits: Limits) -> str | None:
    if limits.quota is None and limits.period is None:
        return None
    return f"{_or_max(limits.quota or -1)} {limits.period or 100000}"


def weight(shares: int) -> int:
    """Return version 2's CPU weight (1 to 10000) for version 1's shares (2 to 262144).

    The curve goes through both ends and both defaults, 1024 and 100, so that a container with the default is worth as
    much as a service of systemd (KEP-2254 as revised in 2025; runc since 1.3.2 and crun since 1.23 do the same).
    """
    if shares <= 2:
        return 1
    power = math.log2(min(shares, 262144))
    return min(10000, math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34)))


def _or_max(value: int | None) -> str | None:
    if value is None:
        return None
    return "max" if value < 0 else str(value)
