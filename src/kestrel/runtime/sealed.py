"""The interpreter's file behind a mount that nobody can write to (CVE-2019-5736).

Every process that becomes a container's runs from there: the zygote's and so the shim's, and the command's. Only
system calls are used here, since the command does this before it has loaded anything else.
"""

import os

from kestrel.linux import abi, syscalls


def interpreter() -> int:
    """Return a descriptor of this interpreter's file in a detached overlay mount that nobody can write to.

    Without an upper directory overlay has no way to write, even if somebody made the mount writable. -1 when it cannot
    be mounted here (not root): then nothing runs that could harm the file either.
    """
    folder, name = os.path.split(os.path.realpath("/proc/self/exe"))
    if ":" in folder or "," in folder:
        return -1
    try:
        root = _overlay(folder)
    except OSError:
        return -1
    try:
        return syscalls.openat2(root, name, abi.O_PATH)
    finally:
        os.close(root)


def _overlay(folder: str) -> int:
    context = syscalls.fsopen("overlay")
    try:
        # Overlay without an upper wants two lowers; the second is only there to be one.
        syscalls.fsconfig(context, abi.FSCONFIG_SET_STRING, "lowerdir", f"{folder}:/usr/lib")
        syscalls.fsconfig(context, abi.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, abi.MOUNT_ATTR_RDONLY)
    finally:
        os.close(context)
