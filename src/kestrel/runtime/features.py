"""What this runtime can do, for callers that ask before they use it (runtime-spec features.md), and an example spec."""

from __future__ import annotations

import os

from kestrel.linux.capabilities import BITS
from kestrel.oci.runtime_defaults import default_spec
from kestrel.runtime import filters, hooks, options
from kestrel.runtime.plan import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NEWEST = "1.3.0"
"""The newest version of the specification whose members are known: linux.netDevices and linux.memoryPolicy are its."""
ACTIONS = (
    "SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD SCMP_ACT_LOG "
    "SCMP_ACT_NOTIFY SCMP_ACT_TRACE SCMP_ACT_TRAP"
).split()
OPERATORS = [f"SCMP_CMP_{name}" for name in "EQ GE GT LE LT MASKED_EQ NE".split()]
ARCHES = [f"SCMP_ARCH_{name}" for name in "AARCH64 ARM MIPS MIPS64 PPC64LE RISCV64 S390X X32 X86 X86_64".split()]


def features() -> dict[str, Any]:
    """Return the document that `kestrel-runtime features` prints."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": NEWEST,
        "hooks": list(hooks.KINDS),
        "mountOptions": sorted(options.WORDS),
        "linux": {
            "namespaces": sorted((*KINDS, "user")),
            "capabilities": list(BITS),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": ARCHES,
                "knownFlags": list(filters.FLAGS),
                "supportedFlags": list(filters.FLAGS),
            },
            "apparmor": {"enabled": os.path.isdir("/sys/module/apparmor")},
            "selinux": {"enabled": os.path.isdir("/sys/fs/selinux/booleans")},
            "intelRdt": {"enabled": False},
            "netDevices": {"enabled": True},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def example(*, rootless: bool = False) -> dict[str, Any]:
    """Return a config.json to begin with: a shell in a read-only root. `rootless` asks for nothing that needs root."""
    # On version 1 a cgroup namespace of its own would hide from tools of the host where the container is.
    own_groups = ("cgroup",) if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else ()
    spec = default_spec(["sh"], namespaces=("pid", "network", "ipc", "uts", "mount", *own_groups))
    spec["process"].update(
        terminal=True,
        env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        capabilities={
            kind: ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
            for kind in ("bounding", "effective", "permitted")
        },
        rlimits=[{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        noNewPrivileges=True,
    )
    spec["root"] = {"path": "rootfs", "readonly": True}
    spec["hostname"] = "kestrel"
    spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return _without_root(spec) if rootless else spec


def _without_root(spec: dict[str, Any]) -> dict[str, Any]:
    """Change a spec for a caller with one user and one group, who has no control groups and no network to give."""
    linux = spec["linux"]
    del linux["resources"]
    kinds = [entry["type"] for entry in linux["namespaces"] if entry["type"] != "network"]
    linux["namespaces"] = [{"type": kind} for kind in (*kinds, "user")]
    for kind, number in (("uid", os.geteuid()), ("gid", os.getegid())):
        linux[f"{kind}Mappings"] = [{"containerID": 0, "hostID": number, "size": 1}]
    for mount in spec["mounts"]:
        # A new sysfs needs a network namespace of one's own; and the terminals' group has no number here.
        if mount["type"] == "sysfs":
            mount |= {"type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
        mount["options"] = [word for word in mount["options"] if word != "gid=5"]
    return spec
