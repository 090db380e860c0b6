"""What values config.json may have, as data, and `fitted`, which holds a stranger's file to it. Pure.

A shape is TEXT, SWITCH, a range of whole numbers, a list with the shape of its items, or an object: members by name,
"*" for all others, and under "" the names of those that must be there. What no shape names is left as it is: the
specification has it ignored. null is as good as absent.

Whoever reads a fitted value can rely on its types; what its numbers and words mean is checked where they are used.
"""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TEXT, SWITCH = "text", "true or false"
U16, U32, I64, U64 = (0, 2**16 - 1), (0, 2**32 - 1), (-(2**63), 2**63 - 1), (-(2**63), 2**64 - 1)

_TEXTS = {"*": TEXT}
_MAPPINGS = [{"": ("containerID", "hostID", "size"), "containerID": U32, "hostID": U32, "size": U32}]

PROCESS = {
    "terminal": SWITCH,
    "consoleSize": {"": ("height", "width"), "height": U16, "width": U16},
    "user": {"uid": U32, "gid": U32, "umask": (0, 0o777), "additionalGids": [U32], "username": TEXT},
    "args": [TEXT],
    "commandLine": TEXT,
    "env": [TEXT],
    "cwd": TEXT,
    "capabilities": {"*": [TEXT]},
    "rlimits": [{"": ("type", "soft", "hard"), "type": TEXT, "soft": U64, "hard": U64}],
    "noNewPrivileges": SWITCH,
    "apparmorProfile": TEXT,
    "selinuxLabel": TEXT,
    "oomScoreAdj": (-1000, 1000),
    "scheduler": {
        "policy": TEXT,
        "nice": I64,
        "priority": I64,
        "flags": [TEXT],
        "runtime": U64,
        "deadline": U64,
        "period": U64,
    },
    "ioPriority": {"class": TEXT, "priority": (0, 7)},
    "execCPUAffinity": {"initial": TEXT, "final": TEXT},
}

_THROTTLES = [{"": ("major", "minor", "rate"), "major": I64, "minor": I64, "rate": U64}]

RESOURCES = {
    "devices": [{"allow": SWITCH, "type": TEXT, "major": I64, "minor": I64, "access": TEXT}],
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), I64),
        "swappiness": U64,
        "disableOOMKiller": SWITCH,
        "useHierarchy": SWITCH,
        "checkBeforeUpdate": SWITCH,
    },
    "cpu": {
        **dict.fromkeys(("shares", "quota", "burst", "period", "realtimeRuntime", "realtimePeriod", "idle"), U64),
        "cpus": TEXT,
        "mems": TEXT,
    },
    "pids": {"limit": I64},
    "blockIO": {
        "weight": U16,
        "leafWeight": U16,
        "weightDevice": [{"major": I64, "minor": I64, "weight": U16, "leafWeight": U16}],
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    },
    "hugepageLimits": [{"": ("pageSize", "limit"), "pageSize": TEXT, "limit": U64}],
    "network": {"classID": U32, "priorities": [{"": ("name", "priority"), "name": TEXT, "priority": U32}]},
    "rdma": {"*": {"hcaHandles": U32, "hcaObjects": U32}},
    "unified": _TEXTS,
}

_MOMENTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_HOOKS = [{"": ("path",), "path": TEXT, "args": [TEXT], "env": [TEXT], "timeout": I64}]

_RULE = {
    "": ("names", "action"),
    "names": [TEXT],
    "action": TEXT,
    "errnoRet": U32,
    "args": [{"": ("index", "value", "op"), "index": U32, "value": U64, "valueTwo": U64, "op": TEXT}],
}

LINUX = {
    "namespaces": [{"": ("type",), "type": TEXT, "path": TEXT}],
    "uidMappings": _MAPPINGS,
    "gidMappings": _MAPPINGS,
    "timeOffsets": {"*": {"secs": I64, "nanosecs": U32}},
    "devices": [
        {
            "": ("type", "path"),
            "type": TEXT,
            "path": TEXT,
            "major": (0, 2**12 - 1),
            "minor": (0, 2**20 - 1),
            "fileMode": U32,
            "uid": U32,
            "gid": U32,
        }
    ],
    "cgroupsPath": TEXT,
    "resources": RESOURCES,
    "sysctl": _TEXTS,
    "seccomp": {
        "": ("defaultAction",),
        "defaultAction": TEXT,
        "defaultErrnoRet": U32,
        "architectures": [TEXT],
        "flags": [TEXT],
        "listenerPath": TEXT,
        "listenerMetadata": TEXT,
        "syscalls": [_RULE],
    },
    "rootfsPropagation": TEXT,
    "maskedPaths": [TEXT],
    "readonlyPaths": [TEXT],
    "mountLabel": TEXT,
    "personality": {"domain": TEXT, "flags": [TEXT]},
    "memoryPolicy": {"mode": TEXT, "nodes": TEXT, "flags": [TEXT]},
    "netDevices": {"*": {"name": TEXT}},
}

SPEC = {
    "ociVersion": TEXT,
    "root": {"path": TEXT, "readonly": SWITCH},
    "mounts": [
        {
            "": ("destination",),
            "destination": TEXT,
            "type": TEXT,
            "source": TEXT,
            "options": [TEXT],
            "uidMappings": _MAPPINGS,
            "gidMappings": _MAPPINGS,
        }
    ],
    "process": PROCESS,
    "hostname": TEXT,
    "domainname": TEXT,
    "hooks": dict.fromkeys(_MOMENTS, _HOOKS),
    "annotations": _TEXTS,
    "linux": LINUX,
}


def fitted(value: Any, shape: Any, name: str = "") -> Any:
    """Return a value that has the shape, without the nulls; `name` is said in errors. Raises InvalidArgument."""
    if isinstance(shape, dict):
        return _object(value, shape, name)
    if isinstance(shape, list):
        if type(value) is not list:
            raise _misfit(name, value, "a list")
        if shape[0] == TEXT and all(type(item) is str for item in value) and _is_text("".join(value)):
            return value  # the many names of a seccomp profile at once
        return [fitted(item, shape[0], f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(shape, tuple):
        # exact: True is an int to isinstance, and 1.0 equals 1
        if type(value) is not int or not shape[0] <= value <= shape[1]:
            raise _misfit(name, value, f"a whole number from {shape[0]} to {shape[1]}")
    elif shape == SWITCH:
        if type(value) is not bool:
            raise _misfit(name, value, SWITCH)
    elif type(value) is not str or not _is_text(value):
        raise _misfit(name, value, TEXT)
    return value


def _object(value: Any, shape: dict[str, Any], name: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _misfit(name or "the specification", value, "an object")
    others = shape.get("*")
    found = {}
    for key, member in value.items():
        wanted = shape.get(key, others) if key else None
        if member is not None:
            found[key] = member if wanted is None else fitted(member, wanted, f"{name}.{key}" if name else key)
    missing = [key for key in shape.get("", ()) if key not in found]
    if missing:
        raise InvalidArgument(f"{name} has no {missing[0]}")
    return found


def _is_text(value: str) -> bool:
    """Say whether the kernel can be given it: half a surrogate pair is no character, and NUL is its own end."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _misfit(name: str, value: Any, wanted: str) -> InvalidArgument:
    shown = ascii(value)
    return InvalidArgument(f"{name} is not {wanted}: {shown if len(shown) < 60 else shown[:57] + '...'}")
