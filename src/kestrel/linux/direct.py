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
_FORK, _FORK_WITH_FILES = (
    struct.pack("8Q", flags, 0, 0, 0, signals.SIGCHLD, 0, 0, 0) for flags in (0, abi.CLONE_FILES)
)


def prctl(option: int, value: int | bytes) -> None:
    """`man 2 prctl`, for options that cannot fail."""
    call_function(_PRCTL, (option, value, 0, 0, 0))


def fork(*, files: bool = False) -> int:
    """Fork, and nothing more; with `files` both have one table of descriptors (`man 2 clone3`). Raises OSError.

    The interpreter's lock is let go of around the call, so there must be no other thread to take it. A child that is to
    do more than its parent does calls `after_fork` first.
    """
    arguments = _FORK_WITH_FILES if files else _FORK  # struct clone_args
    pid: int = call_function(_SYSCALL, (abi.NR_CLONE3, arguments, 64))
    if pid < 0:
        raise OSError("no process could be made")
    return pid


def after_fork() -> None:
    """Do what `os.fork` does in a child: the interpreter forgets signals and locks of the parent."""
    ctypes.pythonapi.PyOS_AfterFork_Child()
