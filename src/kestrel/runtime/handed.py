"""What callers of the command are handed, and what they hand on: descriptors, PID files, open files, signals."""

from __future__ import annotations

import os

from kestrel.base.errors import InvalidArgument
from kestrel.linux import signals, sockets
from kestrel.runtime import channel

_KEPT = {signals.SIGCHLD, signals.SIGKILL, signals.SIGSTOP, signals.SIGURG, signals.SIGPIPE, signals.SIGWINCH}
FORWARDED = set(range(1, 32)) - _KEPT


def send_descriptor(path: str, fd: int, name: bytes) -> None:
    """Connect to a socket and hand it a descriptor: a terminal's master, or a pidfd."""
    with sockets.Socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as peer:
        try:
            peer.connect(path)
        except OSError as error:
            raise InvalidArgument(f"socket {path}: {error.strerror or error}") from error
        channel.send_some(peer, name, [fd])


def write_pid(path: str, pid: int) -> None:
    """Write a PID file in one step: who waits for it never reads half a number. Raises InvalidArgument."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(str(pid))
        os.replace(temporary, path)
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # it was not made
        raise InvalidArgument(f"PID file {path}: {error.strerror}") from error


def check_preserved(count: int) -> int:
    """Return how many descriptors from 3 on go to the program. Raises InvalidArgument: a missing one would be ours."""
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidArgument(f"please check that preserved-fd {fd - 2} (of {count}) is present") from None
    return count


def forward_signals(pid: int) -> None:
    """Hand on to `pid` whatever we are asked."""

    def hand_on(number: int, _frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    for number in FORWARDED:
        signals.signal(number, hand_on)
