"""System calls through the C part of `ctypes` alone, for a process that must write to as little memory as it can.

What the other part makes of a call's arguments and result are objects, in pages that a fork then has for itself: some
150 KiB for the first call (see `kestrel.runtime.keeper`).
"""

import ctypes
import struct
from _ctypes import call_function, dlopen, dlsym

from kestrel.linux import abi, signals

_LIBC = dlopen(None, 0)  # type: ignore[arg-type] # None is this program, which has libc
_PRCTL, _SYSCALL = dlsym(_LIBC, "prctl"), dlsym(_LIBC, "syscall")
_SHARING_FILES = struct.pack("8Q", abi.CLONE_FILES, 0, 0, 0, signals.SIGCHLD, 0, 0, 0)  # struct clone_args


def prctl(option: int, value: int | bytes) -> None:
    """`man 2 prctl`, for options that cannot fail."""
    call_function(_PRCTL, (option, value, 0, 0, 0))


def fork_with_files() -> int:
    """Fork; parent and child have one table of descriptors (CLONE_FILES in `man 2 clone3`). Raises OSError.

    The interpreter's lock is let go of around the call, so there must be no other thread to take it.
    """
    pid: int = call_function(_SYSCALL, (abi.NR_CLONE3, _SHARING_FILES, len(_SHARING_FILES)))
    if pid < 0:
        raise OSError("no process could be made")
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()  # as `os.fork` does
    return pid
