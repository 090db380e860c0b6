"""What this machine withholds, and what that costs: probed once at the start, said once, coped with elsewhere."""

import os
from pathlib import Path

from kestrel.linux import capabilities, cgroups

WANTED = {
    "CAP_SYS_RESOURCE": "limits (ulimit) of containers cannot be raised above the daemon's own",
    "CAP_SYS_ADMIN": "no container can be started",
    "CAP_NET_ADMIN": "containers get no network of their own",
    "CAP_SYS_PTRACE": "processes in other namespaces cannot be joined for exec",
}


def lacks() -> tuple[str, ...]:
    """Return one sentence for each thing that is missing."""
    found = []
    held = capabilities.effective()
    for name, cost in WANTED.items():
        if not held & capabilities.BITS[name]:
            found.append(f"{name} is withheld: {cost}")
    return (*found, *_cgroups(), *_security_modules())


def _cgroups() -> tuple[str, ...]:
    try:
        missing = {"memory", "cpu", "pids", "freezer"} - set(cgroups.detect().controllers)
    except OSError as error:
        return (f"no cgroups: {error.strerror}; containers run without limits and are found by process alone",)
    return tuple(f"the cgroup controller {name} is not mounted: its limits are not applied" for name in sorted(missing))


def _security_modules() -> tuple[str, ...]:
    path = "/sys/kernel/security/lsm"
    names = Path(path).read_text().split(",") if os.path.exists(path) else []
    if "apparmor" in names or "selinux" in names:
        return ()
    return ("neither AppArmor nor SELinux is active: containers are confined by namespaces, capabilities and seccomp",)
