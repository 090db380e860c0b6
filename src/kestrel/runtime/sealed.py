"""The interpreter's file behind a mount that nobody can write to (CVE-2019-5736).

Every process that becomes a container's runs from there, the zygote and so the shim, and the command.
"""

import os

from kestrel.linux import mounts, syscalls
from kestrel.linux.rootfs import Lower, Rootfs


def interpreter() -> int:
    """Return a descriptor of this interpreter's file in a detached overlay mount that nobody can write to.

    Without an upper directory overlay has no way to write, even if somebody made the mount writable. -1 when it cannot
    be mounted here (not root): then nothing runs that could harm the file either.
    """
    path = os.path.realpath("/proc/self/exe")
    folder, name = os.path.split(path)
    try:
        # Overlay without an upper wants two lowers; the second is only there to be one.
        root = mounts.open_rootfs(Rootfs(lowers=(Lower(path=folder), Lower(path="/usr/lib"))))
    except OSError:
        return -1
    try:
        return syscalls.openat2(root, name, os.O_PATH)
    finally:
        os.close(root)
