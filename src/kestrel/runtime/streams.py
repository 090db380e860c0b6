"""A container's standard streams, as its shim sees them: output fanned out, input fed in, nothing ever blocking.

Output goes to the log first, then to every attacher. An attacher reads frames of five bytes of header (stream, 1 or
2; length, big endian) and data; what it sends is input, raw, and closing its sending side is the end of its input.

An attacher that reads too slowly is cut off at a bound, so that the container never waits for it; one that was asked
for as `lossless` makes the container wait instead, as a pipe would, until it reads on or goes away.
"""

from __future__ import annotations

import os
import struct

from kestrel.linux import sockets
from kestrel.runtime import loop
from kestrel.runtime.log import LogWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kestrel.runtime.messages import JSON

HEADER = struct.Struct("!BI")
CHUNK = 65536
HIGH = 256 * 1024  # bytes queued for a lossless attacher before the container has to wait
LIMIT = 8 * 1024 * 1024  # bytes queued for any other before it is cut off
NUMBERS = {"stdout": 1, "stderr": 2}


class Attacher:
    """One who watches a container's output and may write its input."""

    def __init__(
        self, streams: Streams, sock: sockets.Socket, *, outputs: frozenset[str], stdin: bool, lossless: bool
    ) -> None:
        self._streams = streams
        self._socket = sock
        self._outputs = outputs
        self.lossless = lossless
        self._queue: list[bytes] = []
        self.queued = 0
        self.wants_input = stdin
        self._ending = False
        sock.setblocking(False)
        self.rewatch()

    def offer(self, stream: str, data: bytes) -> None:
        """Queue output for it."""
        if stream not in self._outputs:
            return
        frame = HEADER.pack(NUMBERS[stream], len(data)) + data
        self._queue.append(frame)
        self.queued += len(frame)
        self._flush()
        if self.queued > LIMIT and not self.lossless:
            self.drop()

    def end(self) -> None:
        """The output has ended: close once everything queued has been read."""
        self._ending = True
        self._flush()

    def drop(self) -> None:
        """Let go of it now."""
        if self._socket.fileno() < 0:
            return
        self._streams.events.forget(self._socket.fileno())
        self._socket.close()
        self._queue = []
        self.queued = 0
        self._streams.left(self)

    def rewatch(self) -> None:
        """Watch for what matters now: input if somebody takes it, room if something is queued, its end always."""
        if self._socket.fileno() < 0:
            return
        wanted = (loop.READ if self.wants_input and self._streams.takes_input() else 0) | (
            loop.WRITE if self._queue else 0
        )
        self._streams.events.watch(self._socket.fileno(), wanted, self._ready)

    def _ready(self, events: int) -> None:
        if events & loop.WRITE:
            self._flush()
        if self._socket.fileno() >= 0 and events & loop.READ:
            self._read()
        elif events & loop.ENDED:
            self.drop()

    def _flush(self) -> None:
        while self._queue and self._socket.fileno() >= 0:
            try:
                sent = self._socket.send(self._queue[0], sockets.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:
                self.drop()
                return
            self.queued -= sent
            if sent < len(self._queue[0]):
                self._queue[0] = self._queue[0][sent:]
                break
            self._queue.pop(0)
        if self._ending and not self._queue:
            self.drop()
            return
        self.rewatch()
        self._streams.room()

    def _read(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if data:
            self._streams.feed(data)
            return
        self.wants_input = False
        self._streams.input_ended()
        self.rewatch()


class Streams:
    """The shim's ends of one container's standard streams."""

    def __init__(
        self,
        events: loop.Loop,
        log: LogWriter | None,
        *,
        outputs: dict[str, int],
        stdin: int = -1,
        stdin_once: bool = False,
    ) -> None:
        """`outputs` maps stream names to descriptors to read, `stdin` is one to write; with a terminal it is both."""
        self.events = events
        self._log = log
        self._outputs = dict(outputs)
        self._stdin = stdin
        self._terminal = stdin >= 0 and stdin in outputs.values()
        self._stdin_once = stdin_once
        self._pending = b""
        self._closing = False
        self._attachers: list[Attacher] = []
        self._waiting = False
        for stream, fd in self._outputs.items():
            os.set_blocking(fd, False)
            events.watch(fd, loop.READ, self._reader(stream))
        if stdin >= 0 and not self._terminal:
            os.set_blocking(stdin, False)

    def at_rest(self) -> set[int]:
        """Return what is watched while nobody is attached and no input waits."""
        return set() if self._pending else set(self._outputs.values())

    def write_down(self) -> JSON:
        """Return what another process, with our descriptors, needs to go on with `read_up`; only while at rest."""
        log = self._log.write_down() if self._log is not None else None
        return {"outputs": self._outputs, "stdin": self._stdin, "stdin_once": self._stdin_once, "log": log}

    @classmethod
    def read_up(cls, events: loop.Loop, given: JSON) -> Streams:
        """Return the streams that were written down."""
        log = LogWriter.read_up(given["log"]) if given["log"] is not None else None
        return cls(events, log, outputs=given["outputs"], stdin=given["stdin"], stdin_once=given["stdin_once"])

    @property
    def terminal(self) -> int:
        """The master of the container's terminal, -1 when it has none."""
        return self._stdin if self._terminal else -1

    @property
    def log(self) -> LogWriter | None:
        """The container's log."""
        return self._log

    def attach(self, sock: sockets.Socket, *, outputs: frozenset[str], stdin: bool, lossless: bool) -> None:
        """Add an attacher, which writes input too if `stdin`; the socket is ours now."""
        self._attachers.append(Attacher(self, sock, outputs=outputs, stdin=stdin, lossless=lossless))

    # --- output ---

    def _reader(self, stream: str) -> Callable[[int], None]:
        return lambda events: self._read(stream, events)

    def _read(self, stream: str, events: int) -> None:
        if events & loop.WRITE:
            self._push_input()  # a terminal's descriptor is watched once for both directions
        if events & (loop.READ | loop.ENDED):
            fd = self._outputs.get(stream, -1)
            if fd >= 0 and not self._take(stream, fd):
                self._ended(stream)

    def _take(self, stream: str, fd: int) -> bool:
        """Read once and pass it on; False at the end of the stream."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            data = b""  # EIO: every holder of the terminal has gone
        if not data:
            return False
        if self._log is not None:
            self._log.write(stream, data)
        for attacher in list(self._attachers):
            attacher.offer(stream, data)
        if any(attacher.lossless and attacher.queued > HIGH for attacher in self._attachers):
            self._wait()
        return True

    def _wait(self) -> None:
        """Stop reading: the container's writes will block once its pipe is full."""
        self._waiting = True
        for fd in self._outputs.values():
            self.events.forget(fd)

    def room(self) -> None:
        """Go on reading when no lossless attacher is behind any more."""
        if not self._waiting or any(a.lossless and a.queued > HIGH for a in self._attachers):
            return
        self._waiting = False
        for stream, fd in self._outputs.items():
            self.events.watch(fd, self._wanted(fd), self._reader(stream))

    def _wanted(self, fd: int) -> int:
        return loop.READ | (loop.WRITE if fd == self._stdin and self._pending else 0)

    def _ended(self, stream: str) -> None:
        fd = self._outputs.pop(stream)
        self.events.forget(fd)
        if fd == self._stdin:
            self._stdin = -1
        os.close(fd)

    def finish(self) -> None:
        """The container is dead: take what is left in its pipes, tell everybody, close everything.

        Nobody is left to write, so what cannot be read at once will never come; we do not wait for an end of file
        that somebody outside, who was handed the descriptor, may hold back.
        """
        for stream, fd in list(self._outputs.items()):
            left = 64  # chunks: more than a pipe can hold, so that an outside writer cannot keep us here
            while left and self._take_all(stream, fd):
                left -= 1
            self._ended(stream)
        self.close_input()
        if self._log is not None:
            self._log.finish()
        for attacher in list(self._attachers):
            attacher.end()

    def _take_all(self, stream: str, fd: int) -> bool:
        try:
            data = os.read(fd, CHUNK)
        except OSError:
            return False
        if not data:
            return False
        if self._log is not None:
            self._log.write(stream, data)
        for attacher in list(self._attachers):
            attacher.offer(stream, data)
        return True

    # --- input ---

    def takes_input(self) -> bool:
        """Say whether attachers' input is wanted now: there is a reader, and it keeps up."""
        return self._stdin >= 0 and not self._pending and not self._closing

    def feed(self, data: bytes) -> None:
        """Write input; what does not fit waits, and meanwhile nobody's input is read."""
        if self._stdin >= 0:
            self._pending += data
            self._push_input()

    def _push_input(self) -> None:
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._stdin, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""  # the program has closed its input
            self.close_input()
            return
        if not self._pending and self._closing:
            self.close_input()
            return
        if self._stdin < 0:
            return
        if self._terminal:
            if not self._waiting:
                self.events.watch(self._stdin, self._wanted(self._stdin), self._reader("stdout"))
        elif self._pending:
            self.events.watch(self._stdin, loop.WRITE, lambda _events: self._push_input())
        else:
            self.events.forget(self._stdin)
        for attacher in self._attachers:
            attacher.rewatch()

    def input_ended(self) -> None:
        """An attacher has closed its sending side: the program's input ends if it was promised to (`stdin_once`)."""
        if not self._stdin_once or self._terminal or self._stdin < 0:
            return
        if self._pending:
            self._closing = True
        else:
            self.close_input()

    def close_input(self) -> None:
        """End the program's input. A terminal has no end of its own; it closes with its output."""
        if self._stdin >= 0 and not self._terminal:
            self.events.forget(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        for attacher in self._attachers:
            attacher.rewatch()

    def left(self, attacher: Attacher) -> None:
        """An attacher has gone."""
        if attacher not in self._attachers:
            return
        self._attachers.remove(attacher)
        if attacher.wants_input:
            self.input_ended()
        self.room()
