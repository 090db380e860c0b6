"""What a container gets when nobody says otherwise: the spec to start from. Pure.

The choices follow what docker and containerd ship (research/runtime section 3), because images are written for them:
their fourteen capabilities, masked and read-only paths, mounts and devices.
"""

from __future__ import annotations

from kestrel.oci.runtime_seccomp import seccomp_for
from kestrel.oci.runtime_version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    ).split()
)

MASKED_PATHS = (
    *(
        f"/proc/{name}"
        for name in "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats".split()
    ),
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""Hidden: they tell of the host, or let its keys, memory or power draw be read (GHSA-jq35-85cj-fj4p)."""

READONLY_PATHS = tuple(f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger"))

MOUNTS = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "ro")),
)

NAMESPACES = ("pid", "mount", "cgroup")
"""Of the container's own. Network, IPC and UTS are its sandbox's, so they are inherited and not listed."""


def default_spec(
    args: Iterable[str] = (),
    *,
    namespaces: Iterable[str] = NAMESPACES,
    capabilities: Iterable[str] = DEFAULT_CAPABILITIES,
) -> dict[str, Any]:
    """Return a new spec, to be changed freely. It has no root and no seccomp profile."""
    kept = list(capabilities)
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": kept, "effective": kept, "permitted": kept, "inheritable": [], "ambient": []},
            "noNewPrivileges": False,
        },
        "mounts": [
            {"destination": place, "type": kind, "source": source, "options": list(options)}
            for place, kind, source, options in MOUNTS
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "resources": {"devices": []},
        },
    }


def default_seccomp(capabilities: Iterable[str] = DEFAULT_CAPABILITIES) -> dict[str, Any]:
    """Return the profile for a process that may have these capabilities (full names)."""
    return dict(seccomp_for(capabilities))
