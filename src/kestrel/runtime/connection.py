"""One client of a shim: requests in, answers and events out, never blocking the loop.

A client that does not read what it is sent is cut off at a bound; it can come back and ask for the states.
"""

from __future__ import annotations

import os
import struct

from kestrel.linux import sockets
from kestrel.runtime import channel, loop
from kestrel.runtime.journal import note
from kestrel.runtime.messages import error_to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kestrel.runtime.channel import Message

    Handler = Callable[["Connection", Message, list[int]], None]

LIMIT = 4 * 1024 * 1024  # bytes waiting for a client that does not read


class Connection:
    """A connected client. `answer` and `fail` finish a request by its id."""

    def __init__(self, events: loop.Loop, sock: sockets.Socket, handler: Handler, gone: Callable[[], None]) -> None:
        self._loop = events
        self._socket = sock
        self._handler = handler
        self._gone = gone
        self._decoder = channel.Decoder()
        self._waiting: list[tuple[bytes, Sequence[int]]] = []
        self._size = 0
        self.open = True
        sock.setblocking(False)
        self._watch()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def at_rest(self) -> set[int]:
        """Return what is watched while there is neither half a request nor anything that the client has not taken."""
        return {self._socket.fileno()} if not self._waiting and self._decoder.empty else set()

    def answer(self, identifier: object, result: Message | None = None, descriptors: Sequence[int] = ()) -> None:
        """Say that a request has succeeded. Descriptors are duplicated by the kernel; they stay the caller's."""
        self.send({"id": identifier, "ok": result or {}}, descriptors)

    def fail(self, identifier: object, error: BaseException) -> None:
        """Say that a request has failed."""
        self.send({"id": identifier, "error": error_to_json(error)})

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send or queue a message; on a closed connection it goes nowhere."""
        if not self.open:
            return
        data = channel.encode(message, len(descriptors))
        if not self._waiting:
            try:
                sent = channel.send_some(self._socket, data, descriptors)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data, descriptors = (data[sent:], ()) if sent else (data, descriptors)
        self._waiting.append((data, [os.dup(fd) for fd in descriptors]))
        self._size += len(data)
        if self._size > LIMIT:
            self.close()
            return
        self._watch()

    def close(self) -> None:
        """Let go of the client; what is running goes on."""
        if not self.open:
            return
        self.open = False
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._decoder.close()
        for _, descriptors in self._waiting:
            for fd in descriptors:
                os.close(fd)
        self._waiting = []
        self._gone()

    def _watch(self) -> None:
        events = loop.READ | (loop.WRITE if self._waiting else 0)
        self._loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & loop.WRITE:
                self._flush()
            if self.open and events & (loop.READ | loop.ENDED):
                self._read()
        except (OSError, ValueError) as error:
            if not isinstance(error, OSError):
                note(f"a client does not speak the protocol: {error}")
            self.close()

    def _flush(self) -> None:
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                sent = channel.send_some(self._socket, data, descriptors)
            except BlockingIOError:
                return
            self._size -= sent
            for fd in descriptors if sent else ():
                os.close(fd)
            if sent < len(data):
                self._waiting[0] = (data[sent:], () if sent else descriptors)
                return
            self._waiting.pop(0)
        self._watch()

    def _read(self) -> None:
        try:
            data, descriptors = channel.receive(self._socket)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        for message, given in self._decoder.feed(data, descriptors):
            self._handler(self, message, given)


class Listener:
    """The socket at a path that clients connect to: 0600, in a private directory, never abstract (CVE-2020-15257)."""

    def __init__(
        self, events: loop.Loop, directory: str, name: str, accepted: Callable[[sockets.Socket], None], fd: int = -1
    ) -> None:
        """`fd` is the socket where it listens already."""
        self._loop = events
        self._path = f"{directory}/{name}"
        self._accepted = accepted
        self._socket = sockets.Socket(fileno=fd) if fd >= 0 else _listening(directory, name)
        self._socket.setblocking(False)
        events.watch(self._socket.fileno(), loop.READ, self._accept)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:
            return  # it went away before we came to it
        credentials = client.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if uid not in (0, os.geteuid()):
            client.close()
            return
        self._accepted(client)

    def close(self) -> None:
        """Stop listening and remove the path."""
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass


def _listening(directory: str, name: str) -> sockets.Socket:
    found = sockets.Socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        pass
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    previous = os.umask(0o177)
    try:
        # Through the descriptor: sun_path holds 108 bytes, a data directory's path may be longer (`man 7 unix`).
        found.bind(f"/proc/self/fd/{folder}/{name}")
    finally:
        os.umask(previous)
        os.close(folder)
    found.listen(16)
    return found
