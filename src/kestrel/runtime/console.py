"""The caller's side of a terminal, for a command that stays in the foreground: bytes to and fro, and its size."""

import fcntl
import os
import select
import struct
import termios

from kestrel.linux import abi, signals


class Raw:
    """Take our own terminal out of line mode for the length of a block, when there is one."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> None:
        if not os.isatty(self._fd):
            return
        self._before = termios.tcgetattr(self._fd)
        mode = termios.tcgetattr(self._fd)
        # `man 3 cfmakeraw`, but for OPOST: the lines that come end with a line feed alone (`as_written`)
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
            | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def as_written(fd: int) -> None:
    """Let a terminal hand on lines as the program writes them: our own output, where they go, ends them its way."""
    mode = termios.tcgetattr(fd)
    mode[1] &= ~termios.ONLCR
    termios.tcsetattr(fd, termios.TCSANOW, mode)


def size() -> tuple[int, int]:
    """Return our own terminal's (width, height), zeros without one."""
    try:
        height, width = struct.unpack("HHHH", fcntl.ioctl(0, abi.TIOCGWINSZ, b"\0" * 8))[:2]
    except OSError:
        return 0, 0
    return width, height


def follow(pidfd: int, master: int) -> None:
    """Until the process has ended: carry bytes between our terminal and `master`."""

    def resize(_number: int = 0, _frame: object = None) -> None:
        width, height = size()
        if width:
            fcntl.ioctl(master, abi.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    resize()
    signals.signal(signals.SIGWINCH, resize)
    with Raw():
        _carry(pidfd, master)


def _carry(pidfd: int, master: int) -> None:
    poll = select.poll()
    for fd in (0, master, pidfd):
        poll.register(fd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if master in ready:
            if not _copy(master, 1):
                return
        elif pidfd in ready:
            return  # and nothing is left to read
        if 0 in ready and not _copy(0, master):
            poll.unregister(0)


def _copy(source: int, target: int) -> bool:
    """Copy what is there; False at the end."""
    try:
        data = os.read(source, 65536)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
    except OSError:  # EIO: the other end of a terminal is closed
        return False
    return bool(data)
