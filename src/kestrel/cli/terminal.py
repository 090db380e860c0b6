"""This end of an attached process: our stdin, stdout, stderr, window size and signals, over one stream."""

import os
import select
import sys

from kestrel.cli import bare
from kestrel.cli.bare import signal
from kestrel.cli.remote import CONTROL, STDERR, STDIN, STDOUT, Stream, to_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DETACH = b"\x10\x11"  # ctrl-p ctrl-q, docker's detach keys
FORWARDED: "dict[int, str]" = {
    signal.SIGINT: "SIGINT",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP",
    signal.SIGQUIT: "SIGQUIT",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGUSR2: "SIGUSR2",
}


def attach(
    stream: Stream,
    *,
    stdin: bool,
    tty: bool,
    on_event: "Callable[[dict[str, Any]], None] | None" = None,
    interrupt: bool = False,
) -> int:
    """Carry bytes both ways until the process ends; return its exit code.

    With `interrupt` signals end this command instead of being sent to the process. Raises the daemon's error when
    the process could not be started. Detaching (ctrl-p ctrl-q) returns 0.
    """
    session = _Session(stream, stdin=stdin, tty=tty, on_event=on_event)
    try:
        if not interrupt:
            session.open()
        return session.run()
    finally:
        session.close()
        stream.close()


def join(stream: Stream, on_event: "Callable[[dict[str, Any]], None]") -> int:
    """Be at the terminal of a process on a stream that goes on afterwards; return its exit code."""
    session = _Session(stream, stdin=True, tty=True, on_event=on_event)
    try:
        session.open()
        return session.run()
    finally:
        session.close()


class _Session:
    def __init__(
        self, stream: Stream, *, stdin: bool, tty: bool, on_event: "Callable[[dict[str, Any]], None] | None"
    ) -> None:
        self._stream = stream
        self._stdin = stdin
        self._tty = tty and sys.stdin.isatty()
        self._on_event = on_event
        self._saved: Any = None
        self._handlers: dict[int, Any] = {}
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signals: list[int] = []

    def open(self) -> None:
        for number in FORWARDED:
            self._handlers[number] = signal.signal(number, self._signalled)
        if self._tty:
            import termios
            import tty

            self._saved = termios.tcgetattr(0)
            tty.setraw(0)
            self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._signalled)
            self._resize()

    def close(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        os.close(self._wake[0])
        os.close(self._wake[1])

    def run(self) -> int:
        stream = self._stream
        while True:
            if stream.buffered():
                readable: list[Any] = [stream.socket]
            else:
                sources: list[Any] = [stream.socket, self._wake[0]]
                if self._stdin and not stream.pending:
                    sources.append(0)
                readable, writable, _ = select.select(sources, [stream.socket] if stream.pending else [], [])
                if writable:
                    stream.flush()
            if 0 in readable:
                self._stdin = self._forward_stdin()
            if self._wake[0] in readable:
                self._forward_signals()
            if stream.socket in readable:
                code = self._one_frame()
                if code is not None:
                    return code

    def _one_frame(self) -> "int | None":
        channel, data = self._stream.receive()
        if channel in (STDOUT, STDERR):
            _write_all(channel, data)
            return None
        if channel != CONTROL:
            return None
        message = bare.decode(data)
        if "error" in message:
            raise to_error(message["error"])
        if "exit" in message:
            return int(message["exit"])
        if "event" in message and self._on_event is not None:
            self._on_event(message["event"])
        return None

    def _forward_stdin(self) -> bool:
        data = os.read(0, 65536)
        if self._tty and data.endswith(DETACH):
            self._stream.control({"detach": True})
            return False
        self._stream.send(STDIN, data)
        return bool(data)

    def _forward_signals(self) -> None:
        os.read(self._wake[0], 64)
        pending, self._signals = self._signals, []
        for number in pending:
            if number == signal.SIGWINCH:
                self._resize()
            else:
                self._stream.control({"signal": FORWARDED[number]})

    def _signalled(self, number: int, _frame: object) -> None:
        self._signals.append(number)
        os.write(self._wake[1], b"!")

    def _resize(self) -> None:
        columns, rows = os.get_terminal_size(0)
        self._stream.control({"resize": [rows, columns]})


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
