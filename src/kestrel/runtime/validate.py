"""Is this `Spec` one that can be run: structure first, then what this runtime has and has not built. Pure.

Only what would otherwise go wrong late or silently is checked here; the rest is the kernel's to refuse, in its own
words. Anything that is not carried out is refused rather than ignored: a limit or a confinement that silently does
nothing is worse than an error.
"""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument, Unimplemented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NAMESPACES = frozenset(("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"))

# Kernel settings that belong to a namespace, and the namespace (namespaces(7)); all others are the host's.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced auto_msgmni msg_next_id".split()
)
SWAPPED = {ord("."): "/", ord("/"): "."}
_UTS_SYSCTLS = frozenset(("kernel.domainname", "kernel.hostname"))


def check(spec: Mapping[str, Any], sandbox: frozenset[str] = frozenset()) -> None:
    """Raise InvalidArgument or Unimplemented for the first thing that cannot be run as it says.

    `sandbox` names namespace types that are inherited from a sandbox and so not the host's.
    """
    version = spec.get("ociVersion", "1.0.0")
    if not isinstance(version, str) or not version.startswith("1."):
        raise InvalidArgument(f"ociVersion {version!r} is not a 1.x version of the runtime specification")
    linux = spec.get("linux") or {}
    own = _namespaces(linux) | sandbox
    for member in ("hostname", "domainname"):
        if spec.get(member) and "uts" not in own:
            raise InvalidArgument(
                f"unable to set {member} without a private UTS namespace",
                hint="add `uts` to linux.namespaces; the host would be renamed",
            )
    for entry in spec.get("mounts") or ():
        if not isinstance(entry.get("destination"), str) or not entry["destination"]:
            raise InvalidArgument("a mount has no destination")
        _mount(entry, own)
    for device in linux.get("devices") or ():
        if device["type"] not in ("c", "u", "b", "p"):
            raise InvalidArgument(
                f"linux.devices: {device['path']} is of unknown type {device['type']!r}",
                hint="c or u for a character device, b for a block device, p for a FIFO",
            )
    for name, value in (linux.get("sysctl") or {}).items():
        sysctl(name, value, own)
        member = dotted(name).removeprefix("kernel.")
        if member == "hostname" or (member == "domainname" and spec.get("domainname", value) != value):
            raise InvalidArgument(f"sysctl {name!r} is not allowed as it conflicts with the OCI {member!r} field")
    _net_devices(linux.get("netDevices") or {}, own)
    if linux.get("intelRdt"):
        raise Unimplemented("linux.intelRdt is not supported yet")


def _namespaces(linux: Mapping[str, Any]) -> frozenset[str]:
    seen: set[str] = set()
    for entry in linux.get("namespaces") or ():
        kind = entry.get("type")
        if kind not in NAMESPACES:
            raise InvalidArgument(f"unknown namespace type {kind!r}")
        if kind in seen:
            raise InvalidArgument(f"namespace type {kind!r} is listed twice")
        seen.add(kind)
    if "user" not in seen and (linux.get("uidMappings") or linux.get("gidMappings")):
        raise InvalidArgument("linux.uidMappings needs a user namespace", hint="add `user` to linux.namespaces")
    if linux.get("timeOffsets") and "time" not in seen:
        raise InvalidArgument("linux.timeOffsets needs a time namespace of the container's own")
    return frozenset(seen)


def _mount(entry: Mapping[str, Any], own: frozenset[str]) -> None:
    words, where = entry.get("options") or (), entry["destination"]
    bind = entry.get("type") == "bind" or "bind" in words or "rbind" in words
    asked = "idmap" in words or "ridmap" in words
    if asked and not (entry.get("uidMappings") or "user" in own):
        raise InvalidArgument(f"the id-mapped mount at {where} has no mappings")
    if (asked or entry.get("uidMappings") or entry.get("gidMappings")) and not bind:
        raise InvalidArgument(f"the mount at {where} cannot be id-mapped: only bind mounts are")
    if "tmpcopyup" in words and bind:
        raise InvalidArgument(
            f"the bind mount at {where} cannot have the option tmpcopyup", hint="it is for a new tmpfs, which is empty"
        )


def _net_devices(devices: Mapping[str, Any], own: frozenset[str]) -> None:
    if devices and "network" not in own:
        raise InvalidArgument("linux.netDevices needs a network namespace of the container's own")
    inside = [entry.get("name") or name for name, entry in devices.items()]
    for name in (*devices, *inside):
        # dev_valid_name() of the kernel's net/core/dev.c; a name that ends early would be another device's.
        if not 0 < len(name.encode()) < 16 or name in (".", "..") or any(c in "/:" or c <= " " for c in name):
            raise InvalidArgument(f"linux.netDevices: {name!r} is not a name of a network device")
        if inside.count(name) > 1 and not name.endswith("%d"):
            raise InvalidArgument(f"linux.netDevices: two devices are to be {name}")


def dotted(name: str) -> str:
    """Return a setting's name with dots between its words, whichever of both characters parts them.

    The first one does; then the other stands for a dot in a word, such as a device's name (`man 5 sysctl.d`).
    """
    first = next((c for c in name if c in "./"), ".")
    return name.translate(SWAPPED) if first == "/" else name


def sysctl(name: str, value: object, own: frozenset[str]) -> None:
    """Raise InvalidArgument unless the setting belongs to one of the namespaces `own`.

    The name is checked by its characters first: `kernel.shm_rmid_forced+...` or `net/../kernel` once reached the
    host's core_pattern (CVE-2022-0811).
    """
    if not all(part and all(c.isalnum() or c in "_-" for c in part) for part in name.replace("/", ".").split(".")):
        raise InvalidArgument(f"sysctl {name!r} is not a dotted name of letters, digits, _ and -")
    name = dotted(name)
    if not isinstance(value, str) or any(ord(c) < 32 and c != "\t" for c in value):
        raise InvalidArgument(f"sysctl {name}: the value must be one line of text")
    kind = None
    if name.startswith("net."):
        kind = "network"
    elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        kind = "ipc"
    elif name in _UTS_SYSCTLS:
        kind = "uts"
    if kind is None:
        raise InvalidArgument(f"sysctl {name} is not in a namespace of its own, it would change the host")
    if kind not in own:
        raise InvalidArgument(
            f"sysctl {name} needs a {kind} namespace of the container's own, it would change the host"
        )
