"""A `Spec` as an ordered list of operations that can be described, compared and executed.

`build` is pure: the same spec gives an equal plan on any machine, without root. It is made by the process that
creates the container and inherited by init through fork, so nothing is serialised. The order is fixed:

    network devices · take bind sources · leave the host's mount table · root · mounts in the spec's order ·
    devices · console · hooks · masks and read-only paths · names and sysctls · enter the root

and then the process (`process.py`).
"""

from __future__ import annotations

import errno

from kestrel.base.errors import InvalidArgument, Unimplemented
from kestrel.base.values import dataclass, replace
from kestrel.linux import abi
from kestrel.linux.rootfs import Rootfs
from kestrel.runtime import devices, hooked, hooks, names, options, users, validate
from kestrel.runtime import operations as op
from kestrel.runtime.place import Operation
from kestrel.runtime.process import Filter, Process
from kestrel.runtime.process import parse as parse_process
from kestrel.runtime.users import Ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

KINDS = {
    "mount": abi.CLONE_NEWNS,
    "pid": abi.CLONE_NEWPID,
    "network": abi.CLONE_NEWNET,
    "ipc": abi.CLONE_NEWIPC,
    "uts": abi.CLONE_NEWUTS,
    "cgroup": abi.CLONE_NEWCGROUP,
    "time": abi.CLONE_NEWTIME,
}
"""Namespace types of the spec that can be made here."""

DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
"""What every container has (config-linux.md, "Default Devices"); /dev/console and /dev/ptmx come apart."""


READ_ONLY = abi.MOUNT_ATTR_RDONLY

LABELLED = ("tmpfs", "devpts", "mqueue")
"""Filesystems that `linux.mountLabel` is for: those that take an SELinux context when they are mounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything init will do. `new` are CLONE_NEW* bits; `joined` are (bit, path) of namespaces that exist.

    `start_hooks` is called in the container right before its program is executed.
    """

    new: int
    joined: tuple[tuple[int, str], ...]
    operations: tuple[Operation, ...]
    process: Process
    ids: Ids | None = None
    start_hooks: Callable[[Mapping[str, str]], None] | None = None
    time_offsets: tuple[tuple[str, int, int], ...] = ()

    def describe(self) -> list[str]:
        """Return the plan in plain words, a line each."""
        made = [name for name, bit in KINDS.items() if self.new & bit]
        lines = [f"new namespaces: {', '.join(made) or 'none'}"]
        lines += [f"join namespace {path}" for _, path in self.joined]
        lines += [operation.describe() for operation in self.operations]
        user = f"user {self.process.uid}:{self.process.gid}"
        if self.ids is not None:
            lines.append(f"enter a user namespace: {self.ids.describe()}")
        lines.append(f"run {' '.join(self.process.args)} as {user} in {self.process.cwd}")
        return lines


def build(
    spec: Mapping[str, Any],
    rootfs: Rootfs | None = None,
    *,
    seccomp: Filter | None = None,
    cgroup_version: int = 2,
    cgroup_hierarchies: Sequence[str] = (),
    size: tuple[int, int] = (0, 0),
    sandbox: frozenset[str] = frozenset(),
    state: Mapping[str, Any] | None = None,
    pivot: bool = True,
    cgroup: str = "",
) -> Plan:
    """Return the plan for a spec. `rootfs` replaces `root.path`. Raises InvalidArgument or Unimplemented.

    `size` is the (width, height) of the terminal, when the spec does not say. `sandbox` names the types of namespace
    that the container inherits but that are not the host's. `state` is what hooks in the container are told of it;
    without it there may be no hooks. `pivot` off is for a host whose root is a ramdisk.
    `cgroup` is the path of the container's group.
    """
    validate.check(spec, sandbox)
    linux = spec.get("linux") or {}
    ids = users.parse(linux)
    process = parse_process(spec.get("process") or {}, seccomp, linux)
    new, joined = _namespaces(linux.get("namespaces") or ())
    own = bool(new & abi.CLONE_NEWNS)
    own_cgroups = new & abi.CLONE_NEWCGROUP or any(bit == abi.CLONE_NEWCGROUP for bit, _ in joined)
    group = "" if own_cgroups else cgroup
    cgroups = op.MountCgroups("", cgroup_version, tuple(cgroup_hierarchies), group=group)
    entries = spec.get("mounts") or ()
    root = (spec.get("root") or {}).get("path", "")
    mounts = _mounts(entries, cgroups, linux.get("mountLabel") or "", ids, "" if rootfs is not None else root)
    operations = _network_devices(linux) + _sources(mounts, entries, "" if rootfs is not None else root)
    words = options.parse([linux["rootfsPropagation"]] if linux.get("rootfsPropagation") else [])
    if linux.get("rootfsPropagation") and not words.propagation:
        raise InvalidArgument(
            f"linux.rootfsPropagation={linux['rootfsPropagation']} is not supported",
            hint="private, shared, slave or unbindable, or one of these with r in front for the mounts below too",
        )
    if words.propagation == abi.MS_SLAVE and rootfs is None and own:
        operations.append(op.TakeSource(op.ROOT, root, recursive=True))
    operations += [op.OwnMounts(own), op.MountRoot(rootfs, root, own, ids)]
    operations += [users.ActAsOwner(ids.uid(0), ids.gid(0))] if ids is not None else []
    closed = _closed(mounts)
    operations += mounts
    operations += [] if _given_dev(entries) else _devices(entries, linux, ids)
    operations += _console(spec, process, size, ids) if process.terminal else []
    operations += closed
    found = hooks.parse(spec)
    if found and state is None:
        raise Unimplemented("hooks are not run here", hint="use `kestrel-runtime` for a container with hooks")
    operations += hooked.operations(found, state or {})
    if process.cwd != "/":
        operations.append(op.MakeDirectory(process.cwd))
    operations += [op.MaskPath(path) for path in dict.fromkeys(linux.get("maskedPaths") or ())]
    operations += [op.ReadOnlyPath(path) for path in dict.fromkeys(linux.get("readonlyPaths") or ())]
    operations += [names.RaiseLoopback()] if new & abi.CLONE_NEWNET else []
    operations += _names(spec)
    operations += [names.SetSysctl(name, value) for name, value in (linux.get("sysctl") or {}).items()]
    if (spec.get("root") or {}).get("readonly"):
        operations.append(op.SetRootFlags())
    how = "chroot" if not own else "pivot" if pivot else "cover"
    # All is private but for what a mount asked to be shared, which stays so.
    propagation = words.propagation if words.propagation != abi.MS_PRIVATE else 0
    operations.append(op.EnterRoot(how, propagation, words.propagation_recursive))
    return Plan(
        new=new,
        joined=joined,
        ids=ids,
        operations=tuple(operations),
        process=process,
        start_hooks=hooks.at_start(found, state or {}),
        time_offsets=_time_offsets(linux),
    )


def _namespaces(entries: Sequence[Mapping[str, str]]) -> tuple[int, tuple[tuple[int, str], ...]]:
    new, joined = 0, []
    for entry in entries:
        if entry["type"] == "user":
            continue  # entered last, through a descriptor: `Plan.ids`
        bit = KINDS[entry["type"]]
        if entry.get("path"):
            joined.append((bit, entry["path"]))
        else:
            new |= bit
    return new, tuple(joined)


def _network_devices(linux: Mapping[str, Any]) -> list[Operation]:
    if not linux.get("netDevices"):
        return []
    from kestrel.runtime import network_devices

    return [network_devices.parse(linux["netDevices"])]


def _sources(mounts: list[Operation], entries: Sequence[Mapping[str, Any]], root: str) -> list[Operation]:
    """Return how the sources of bind mounts are taken first; one that lies in `root` is taken by its mount, later."""
    found: list[Operation] = []
    for number, mount in enumerate(mounts):
        if not isinstance(mount, op.MountBind):
            continue
        source = _source(mount, entries[mount.index])
        if root and f"{mount.source}/".startswith(f"{root}/"):
            mounts[number] = replace(mount, take=source)
        else:
            found.append(source)
    return found


def _closed(mounts: list[Operation]) -> list[Operation]:
    """Let filesystems in memory that are to be read-only be writable until all is in them; return what ends that."""
    found: list[Operation] = []
    for number, mount in enumerate(mounts):
        if isinstance(mount, op.MountFilesystem) and mount.kind == "tmpfs" and mount.options.add & READ_ONLY:
            writable = replace(mount.options, add=mount.options.add & ~READ_ONLY)
            mounts[number] = replace(mount, options=writable)
            found.append(op.CloseFilesystem(mount.destination))
    return found


def _source(bind: op.MountBind, entry: Mapping[str, Any]) -> op.TakeSource:
    """Return how the source of a bind mount is taken; mappings of its own come before the container's."""
    given = entry.get("uidMappings"), entry.get("gidMappings")
    own = users.ranges(given[0] or (), given[1] or (), f"mount {bind.destination}") if any(given) else None
    idmap = bind.options.idmap or ("idmap" if own is not None else "")
    return op.TakeSource(bind.index, bind.source, bind.options.recursive, idmap, own, bind.options.source_link)


def _mounts(
    entries: Sequence[Mapping[str, Any]], cgroups: op.MountCgroups, label: str, ids: Ids | None, root: str
) -> list[Operation]:
    found: list[Operation] = []
    for index, entry in enumerate(entries):
        destination = absolute(entry["destination"])
        if root and f"{destination}/".startswith(f"{root}/"):
            destination = absolute(destination.removeprefix(root))  # written as the host sees it, which runc lets pass
        parsed = options.parse(entry.get("options") or ())
        kind = entry.get("type") or ""
        if parsed.bind or kind == "bind":
            found.append(op.MountBind(index, entry.get("source", ""), destination, parsed))
        elif kind in ("cgroup", "cgroup2"):
            found.append(replace(cgroups, destination=destination, options=parsed))
        else:
            if label and kind in LABELLED:
                parsed = replace(parsed, data=(*parsed.data, ("context", label)))
            parsed = users.translated(kind, parsed, ids)
            found.append(op.MountFilesystem(destination, kind, entry.get("source", ""), parsed))
    return found


def absolute(path: str) -> str:
    """Return a destination from the root on, without `.` and `..` (runtime-spec 1.2 allows relative ones)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _given_dev(mounts: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether /dev is one that the container was given: then it is left as it is."""
    own = [m for m in mounts if absolute(m["destination"]) == "/dev"]
    return bool(own) and (own[-1].get("type") == "bind" or options.parse(own[-1].get("options") or ()).bind)


def _has_devpts(mounts: Sequence[Mapping[str, Any]]) -> bool:
    return any(m.get("type") == "devpts" for m in mounts)


def _devices(mounts: Sequence[Mapping[str, Any]], linux: Mapping[str, Any], ids: Ids | None) -> list[Operation]:
    found: list[Operation] = []
    asked = {absolute(device["path"]): device for device in linux.get("devices") or ()}
    found += [
        devices.MakeDevice(path, "c", major, minor, default=True) for path, major, minor in DEVICES if path not in asked
    ]
    for path, device in asked.items():
        found.append(
            devices.MakeDevice(
                path,
                device["type"],
                device.get("major", 0),
                device.get("minor", 0),
                device.get("fileMode", 0o666) & 0o7777,
                device.get("uid", 0) if ids is None else ids.uid(device.get("uid", 0)),
                device.get("gid", 0) if ids is None else ids.gid(device.get("gid", 0)),
            )
        )
    found.append(devices.LinkDevices(ptmx=_has_devpts(mounts)))
    return found


def _console(spec: Mapping[str, Any], process: Process, size: tuple[int, int], ids: Ids | None) -> list[Operation]:
    mounts = spec.get("mounts") or ()
    if not _has_devpts(mounts) and not _given_dev(mounts):
        raise InvalidArgument("process.terminal needs a devpts filesystem among the mounts", errno=errno.ENOTTY)
    asked = (spec.get("process") or {}).get("consoleSize") or {}
    width, height = asked.get("width") or size[0], asked.get("height") or size[1]
    owner = process.uid if ids is None else ids.uid(process.uid)
    return [devices.OpenConsole(width, height, owner)]


def _names(spec: Mapping[str, Any]) -> list[Operation]:
    hostname, domainname = spec.get("hostname") or "", spec.get("domainname") or ""
    return [names.SetNames(hostname, domainname)] if hostname or domainname else []


def _time_offsets(linux: Mapping[str, Any]) -> tuple[tuple[str, int, int], ...]:
    """Return (clock, seconds, nanoseconds) to add in a new time namespace (`man 7 time_namespaces`)."""
    found = []
    for clock, offset in (linux.get("timeOffsets") or {}).items():
        if clock not in ("monotonic", "boottime"):
            raise InvalidArgument(f"linux.timeOffsets: unknown clock {clock!r}")
        found.append((clock, int(offset.get("secs") or 0), int(offset.get("nanosecs") or 0)))
    return tuple(found)
