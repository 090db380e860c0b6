"""Control groups, version 1: a hierarchy per controller (Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

import errno
import os
import time

from kestrel.linux.cgroups.files import checked, exists, number, read, remove_tree, send_kill, table, tree, write
from kestrel.linux.cgroups.values import DeviceRule, Group, Limits, OomWatch, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WANTED = ("devices", "memory", "pids", "cpu", "cpuacct", "freezer")
"""Controllers of version 1 that every group gets; the others only when a limit asks for them."""

UNIFIED = "unified"
"""Where systemd mounts version 2's hierarchy, without controllers, beside those of version 1."""

KNOWN = (
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio",
    "perf_event", "rdma", "misc", "systemd", UNIFIED,
)  # fmt: skip
"""Where hierarchies are mounted: a controller each, systemd's own without any, and version 2 beside them ("hybrid")."""


def controllers(root: str) -> dict[str, str]:
    """Return the mounted controllers and their directories. Controllers mounted together are found by either name."""
    found = {}
    for name in KNOWN:
        directory = f"{root}/{name}"
        if exists(f"{directory}/cgroup.procs"):
            found[name] = directory
    return found


class V1:
    """Version 1 as mounted here."""

    version = 1

    def __init__(self, root: str, directories: dict[str, str]) -> None:
        self.root = root
        self.directories = directories
        self.controllers = frozenset(directories)

    def create(self, path: str, limits: Limits | None = None, *, everywhere: bool = False) -> Group:
        """Make the group in every wanted controller's hierarchy."""
        path = checked(path)
        for name in self.directories if everywhere else self._wanted(limits or Limits()):
            self._make(self.directories[name], path, name)
        return V1Group(self, path)

    def group(self, path: str) -> Group:
        """Return the group of that path in whichever hierarchies have it."""
        return V1Group(self, checked(path))

    def children(self, path: str) -> list[str]:
        """Return the paths right below, in any hierarchy."""
        found: dict[str, None] = {}
        for directory in self.directories.values():
            try:
                with os.scandir(f"{directory}/{checked(path)}") as entries:
                    found.update({f"{checked(path)}/{entry.name}": None for entry in entries if entry.is_dir()})
            except FileNotFoundError:
                pass
        return list(found)

    def hierarchies(self, limits: Limits | None = None, *, everywhere: bool = False) -> tuple[str, ...]:
        """Group the controllers that share a hierarchy: /proc/self/cgroup lists them as they were mounted.

        One that has no controllers is `name=NAME` there, and here.
        """
        wanted = self.directories if everywhere else self._wanted(limits or Limits())
        lines = (line.split(":", 2) for line in read("/proc/self/cgroup").splitlines())
        found = (names for _, names, _ in lines)
        return tuple(n for n in found if any(name.removeprefix("name=") in wanted for name in n.split(",")))

    def _wanted(self, limits: Limits) -> list[str]:
        names = [name for name in WANTED if name in self.directories]
        optional = {
            "cpuset": limits.cpus or limits.mems,
            "blkio": limits.io_weight is not None or limits.io_weights or limits.throttles,
            "hugetlb": limits.hugepages,
            "rdma": limits.rdma,
            "net_cls": limits.net_class is not None,
            "net_prio": limits.net_priorities,
        }
        return names + [name for name, needed in optional.items() if needed and name in self.directories]

    def _make(self, top: str, path: str, controller: str) -> None:
        try:
            os.mkdir(f"{top}/{path}", 0o755)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self._make(top, os.path.dirname(path), controller)
            self._make(top, path, controller)
            return
        if controller == "cpuset":
            self._inherit(top, path)

    def _inherit(self, top: str, path: str) -> None:
        """A new cpuset is empty, and an empty one takes no process: fill it from its parent, and that from its own."""
        above = os.path.dirname(path)
        if above:
            self._inherit(top, above)
        parent = f"{top}/{above}"
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not read(f"{top}/{path}/{name}").strip():
                write(f"{top}/{path}/{name}", read(f"{parent}/{name}"))


class V1Group:
    """A group of version 1: the same path below several roots."""

    def __init__(self, hierarchy: V1, path: str, below: Mapping[str, str] | None = None) -> None:
        self.path = path
        self._hierarchy = hierarchy
        self._roots = hierarchy.directories
        self._below = below or {}

    def _file(self, name: str) -> str:
        """Return the full name of `controller.file`, in the hierarchy of that controller."""
        controller = name.partition(".")[0]
        root = self._roots.get(controller)
        if root is None:
            raise OSError(errno.ENOTSUP, f"no {controller} controller is mounted, cannot set", name)
        return f"{root}/{self.path}/{name}"

    def _directories(self) -> list[str]:
        found = (f"{root}/{self.path}" for root in dict.fromkeys(self._roots.values()))
        return [directory for directory in found if exists(directory)]

    def within(self, below: Mapping[str, str]) -> Group:
        """Return a group whose joiners go to groups below this one: by controller, "" for all others."""
        for name in below:
            if name and name not in self._roots:
                raise ValueError(f"unknown controller {name}")
        return V1Group(self._hierarchy, self.path, {name: path and checked(path) for name, path in below.items()})

    def _joined(self, name: str) -> str:
        """Return the directory that is joined in a hierarchy, empty where the group is not in it."""
        top = f"{self._roots[name]}/{self.path}"
        return f"{top}/{self._below.get(name, self._below.get('', ''))}" if exists(top) else ""

    def joiners(self) -> list[int]:
        """Open the `tasks` file of every hierarchy but version 2's, which has none."""
        opened: list[int] = []
        try:
            for name in self._roots:
                directory = self._joined(name) if name != UNIFIED else ""
                if directory:
                    opened.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            for fd in opened:  # a comprehension would lose what it had opened
                os.close(fd)
            raise
        return opened

    def directory(self) -> int:
        """Open the directory in version 2's hierarchy, where that is mounted beside the others."""
        directory = self._joined(UNIFIED) if UNIFIED in self._roots else ""
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if directory else -1

    def attach(self, pid: int) -> None:
        """Move a process by its number."""
        for directory in self._directories():
            write(f"{directory}/cgroup.procs", str(pid))

    def limit(self, limits: Limits) -> None:
        """Write what is given, memory in the order the kernel accepts."""
        if limits.unified:
            raise OSError(
                errno.ENOTSUP, "invalid configuration: control groups of version 1 have no unified resources", "unified"
            )
        self._limit_memory(limits)
        self._limit_time(("cpu.cfs_period_us", limits.period), ("cpu.cfs_quota_us", limits.quota))
        self._limit_time(("cpu.rt_period_us", limits.realtime_period), ("cpu.rt_runtime_us", limits.realtime_runtime))
        simple = (
            ("memory.soft_limit_in_bytes", limits.reservation),
            ("memory.swappiness", limits.swappiness),
            ("cpu.shares", limits.shares),
            ("cpu.cfs_burst_us", limits.burst),
            ("cpu.idle", limits.idle),
            ("cpuset.cpus", limits.cpus or None),
            ("cpuset.mems", limits.mems or None),
            ("pids.max", "max" if limits.pids is not None and limits.pids < 0 else limits.pids),
            (self._weight_file(), limits.io_weight),
            ("memory.oom_control", 1 if limits.oom_kill_disable else None),
            ("net_cls.classid", limits.net_class),
        )
        for name, value in simple:
            if value is not None:
                write(self._file(name), str(value))
        for value in limits.io_weights:
            write(self._file(f"{self._weight_file()}_device"), value)
        for name, value in limits.throttles:
            write(self._file(f"blkio.throttle.{name}"), value)
        for size, value in limits.hugepages:
            write(self._file(f"hugetlb.{size}.limit_in_bytes"), str(value))
        for value in limits.rdma:
            write(self._file("rdma.max"), value)
        for value in limits.net_priorities:
            write(self._file("net_prio.ifpriomap"), value)

    def _limit_time(self, period: tuple[str, int | None], share: tuple[str, int | None]) -> None:
        """A share of a period may not exceed the parent's at any moment: where one order does, the other does not."""
        steps = [(self._file(name), str(value)) for name, value in (period, share) if value is not None]
        try:
            for path, value in steps:
                write(path, value)
        except OSError as error:
            if error.errno != errno.EINVAL or len(steps) < 2:
                raise
            for path, value in reversed(steps):
                write(path, value)

    def _weight_file(self) -> str:
        """Two schedulers of block devices know weights: CFQ, gone since Linux 5.0, and BFQ with files of its own."""
        root = self._roots.get("blkio")
        own = "blkio.weight"
        return own if root is None or exists(f"{root}/{self.path}/{own}") else "blkio.bfq.weight"

    def _limit_memory(self, limits: Limits) -> None:
        """Memory may never exceed memory and swap together, so the order depends on which way the limits move."""
        if limits.memory is None and limits.swap is None:
            return
        plain, both = self._file("memory.limit_in_bytes"), self._file("memory.memsw.limit_in_bytes")
        has_swap = exists(both)
        swap = limits.swap
        if limits.memory == -1 and swap is None:
            swap = -1  # no limit of memory makes one on the sum meaningless
        steps = [(plain, limits.memory), (both, swap if has_swap else None)]
        if has_swap and limits.memory is not None and swap is not None:
            current = number(read(both))
            if swap == -1 or (current is not None and limits.memory > current) or limits.memory == -1:
                steps.reverse()
        for path, value in steps:
            if value is not None:
                write(path, str(value))

    def devices(self, rules: Sequence[DeviceRule]) -> None:
        """Deny all, then each rule in order."""
        write(self._file("devices.deny"), "a")
        for rule in rules:
            if not rule.allow and rule.kind == "a":
                continue  # denied already; the kernel resets the whole list on "a"
            major = "*" if rule.major is None else rule.major
            minor = "*" if rule.minor is None else rule.minor
            text = "a" if rule.kind == "a" else f"{rule.kind} {major}:{minor} {rule.access}"
            write(self._file("devices.allow" if rule.allow else "devices.deny"), text)

    def _read(self, name: str) -> str:
        root = self._roots.get(name.partition(".")[0])
        return "" if root is None else read(f"{root}/{self.path}/{name}")

    def stats(self) -> Stats:
        """Read memory, CPU, pids and block I/O."""
        memory = table(self._read("memory.stat"))
        usage = number(self._read("memory.usage_in_bytes"))
        inactive = memory.get("total_inactive_file", 0)
        cpu = table(self._read("cpuacct.stat"))
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        io = self._io()
        return Stats(
            cpu=number(self._read("cpuacct.usage")),
            cpu_user=cpu["user"] * tick if "user" in cpu else None,
            cpu_system=cpu["system"] * tick if "system" in cpu else None,
            throttled=table(self._read("cpu.stat")).get("throttled_time"),
            memory=usage,
            memory_limit=number(self._read("memory.limit_in_bytes")),
            working_set=None if usage is None else max(0, usage - inactive),
            rss=memory.get("total_rss"),
            page_faults=memory.get("total_pgfault"),
            major_page_faults=memory.get("total_pgmajfault"),
            swap=memory.get("total_swap"),
            pids=number(self._read("pids.current")),
            oom_kills=self.oom_kills(),
            io_read=io.get("Read"),
            io_written=io.get("Write"),
        )

    def _io(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for line in self._read("blkio.throttle.io_service_bytes_recursive").splitlines():
            words = line.split()
            if len(words) == 3:
                totals[words[1]] = totals.get(words[1], 0) + int(words[2])
        return totals

    def freeze(self, frozen: bool) -> None:
        """Write the state and wait for it: FREEZING is not yet FROZEN, and may need another push."""
        path = self._file("freezer.state")
        wanted = "FROZEN" if frozen else "THAWED"
        due = time.monotonic() + 1
        while True:
            write(path, wanted)
            if read(path).strip() == wanted:
                return
            if time.monotonic() > due:
                raise TimeoutError(errno.ETIMEDOUT, f"processes did not become {wanted.lower()}", path)
            time.sleep(0.001)

    def pids(self) -> list[int]:
        """Read cgroup.procs in the first hierarchy that has the group, with its sub-groups."""
        for directory in self._directories():
            found: list[int] = []
            for group in tree(directory):
                found += [int(pid) for pid in read(f"{group}/cgroup.procs").split()]
            return found
        return []

    def kill(self) -> bool:
        """SIGKILL everything; a frozen process would not die, so thaw, also what a container froze below."""
        pids = self.pids()
        if not pids:
            return True
        send_kill(pids)
        root = self._roots.get("freezer")
        for group in tree(f"{root}/{self.path}") if root else ():
            if read(f"{group}/freezer.state").strip() not in ("", "THAWED"):
                write(f"{group}/freezer.state", "THAWED")
        return False

    def oom_kills(self) -> int:
        """`oom_kill` of memory.oom_control (since Linux 4.13)."""
        return table(self._read("memory.oom_control")).get("oom_kill", 0)

    def oom_watch(self) -> OomWatch | None:
        """An eventfd registered with cgroup.event_control (cgroup-v1/memory.rst, section 10)."""
        root = self._roots.get("memory")
        if root is None:
            return None
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{root}/{self.path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                write(f"{root}/{self.path}/cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            return None
        return OomWatch(event, urgent=False)

    def remove(self) -> None:
        """rmdir in every hierarchy."""
        for root in dict.fromkeys(self._roots.values()):
            remove_tree(f"{root}/{self.path}")
