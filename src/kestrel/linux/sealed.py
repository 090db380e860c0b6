"""The interpreter's file behind a mount that nobody can write to (CVE-2019-5736).

Every process that becomes a container's runs from there: the zygote's and so the shim's, and the command's. The command
seals itself before it does anything else and begins anew, so little is loaded here: `os`, and `ctypes` around its C
part, take as long as all that is done.
"""

import posix
import sys
from _ctypes import call_function, dlopen, dlsym

from kestrel.linux import abi

TYPE_CHECKING = False

_SYSCALL = dlsym(dlopen(None, 0), "syscall")  # type: ignore[arg-type] # None is this program, which has libc


def begin_again() -> "None":
    """Execute this program anew, from a file that nobody can write to, unless it is one already.

    That the file itself says: a variable could be set by whoever calls us.
    """
    if not posix.statvfs("/proc/self/exe").f_flag & posix.ST_RDONLY:
        fd = interpreter()
        if fd >= 0:
            posix.execve(f"/proc/self/fd/{fd}", sys.orig_argv, posix.environ)


def interpreter() -> int:
    """Return a descriptor of this interpreter's file in a detached overlay mount that nobody can write to.

    Without an upper directory overlay has no way to write, even if somebody made the mount writable. -1 when it cannot
    be mounted here (not root): then nothing runs that could harm the file either.
    """
    folder, _, name = posix.readlink("/proc/self/exe").rpartition("/")
    if ":" in folder or "," in folder:
        return -1
    try:
        root = _overlay(folder or "/")
    except OSError:
        return -1
    try:
        return posix.open(name, abi.O_PATH | posix.O_CLOEXEC, dir_fd=root)
    finally:
        posix.close(root)


def _overlay(folder: str) -> int:
    context = _call(abi.NR_FSOPEN, b"overlay", abi.FSOPEN_CLOEXEC)
    try:
        # Overlay without an upper wants two lowers; the second is only there to be one.
        lowers = f"{folder}:/usr/lib".encode("utf-8", "surrogateescape")
        _call(abi.NR_FSCONFIG, context, abi.FSCONFIG_SET_STRING, b"lowerdir", lowers, 0)
        _call(abi.NR_FSCONFIG, context, abi.FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(abi.NR_FSMOUNT, context, abi.FSMOUNT_CLOEXEC, abi.MOUNT_ATTR_RDONLY)
    finally:
        posix.close(context)


def _call(number: int, *arguments: "int | bytes | None") -> int:
    """Make a system call (`man 2 syscall`). Raises OSError, which cannot say why."""
    result: int = call_function(_SYSCALL, (number, *arguments))
    if result < 0:
        raise OSError(f"system call {number} failed")
    return result
