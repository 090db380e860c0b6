"""The client of our own socket: one HTTP request a command, answered in JSON lines or taken over as a stream.

Written on a bare socket because `http.client` alone would cost as much as the whole command (50 ms). Requests are
HTTP/1.0, so an answer is simply everything up to the end of the connection; a stream is an HTTP/1.1 upgrade.

Answer lines: `{"event": ...}` while work goes on, then one `{"result": ...}` or `{"error": ...}`.
"""

import os
import time

from kestrel.base.errors import KINDS, Internal, KestrelError, Unavailable
from kestrel.cli import bare
from kestrel.cli.places import run_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    OnEvent = Callable[[dict[str, Any]], None]

STDIN, STDOUT, STDERR, CONTROL = range(4)
"""Channels of a stream, each frame `[channel, 0, 0, 0, length (4 bytes, big-endian)]` as docker's stdcopy."""
HEADER = 8  # bytes of a frame before its data
IDLE = 0.1  # seconds without a word after which somebody who waits repaints what he shows
ATTEMPTS, PAUSE = 20, 0.02  # how often a request is sent again that no daemon has read, and the seconds between


def call(
    verb: str,
    body: "dict[str, Any] | None" = None,
    on_event: "OnEvent | None" = None,
    idle: "Callable[[], None] | None" = None,
) -> "Any":
    """Ask the daemon (started if none runs) to do `verb`; return its result. `idle` is called while nothing comes.

    Raises the KestrelError that the daemon raised, or Unavailable when it went away in the middle.
    """
    connection, lines, _ = _request(verb, body or {}, version="1.0", headers="")
    try:
        while True:
            if idle is not None and not lines.buffer:
                wait(connection, idle)
            line = lines.next()
            if not line:
                break
            message = bare.decode(line)
            if "event" in message:
                if on_event is not None:
                    on_event(message["event"])
            elif "error" in message:
                raise to_error(message["error"])
            else:
                return message["result"]
    except ConnectionResetError:
        pass  # as below
    finally:
        connection.close()
    raise Unavailable("the daemon went away before it answered", hint="see `kestrel status` and the daemon's log")


def wait(connection: bare.Socket, idle: "Callable[[], None]") -> None:
    """Return when something can be read; until then call `idle` some times a second."""
    import select

    while not select.select([connection], [], [], IDLE)[0]:
        idle()


class Stream:
    """A taken-over connection: frames both ways."""

    def __init__(self, verb: str, body: "dict[str, Any]") -> None:
        headers = "Connection: Upgrade\r\nUpgrade: kestrel\r\n"
        self.socket, lines, status = _request(verb, body, version="1.1", headers=headers)
        self._outgoing = bytearray()
        if status != 101:
            error = to_error(bare.decode(lines.next())["error"])
            self.socket.close()
            raise error
        self._buffer = lines.buffer  # what follows the head belongs to the frames

    def send(self, channel: int, data: bytes) -> None:
        """Send one frame; an empty one on STDIN says there will be no more.

        Never waits: the daemon may take nothing until we have read what it has for us. What it does not take now is
        kept, `pending` until `flush` has sent it.
        """
        self._outgoing += bytes((channel, 0, 0, 0)) + len(data).to_bytes(4, "big") + data
        self.flush()

    def flush(self) -> None:
        """Send as much of what is pending as the daemon takes."""
        try:
            while self._outgoing:
                del self._outgoing[: self.socket.send(self._outgoing, bare.DONTWAIT)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._outgoing.clear()  # the daemon has gone, as `receive` is about to say

    @property
    def pending(self) -> bool:
        """Whether frames wait for the daemon to take them."""
        return bool(self._outgoing)

    def control(self, message: "dict[str, Any]") -> None:
        """Send a control message: `{"resize": [rows, columns]}` or `{"signal": "TERM"}`."""
        self.send(CONTROL, bare.encode(message))

    def receive(self) -> "tuple[int, bytes]":
        """Return the next frame. Raises Unavailable when the daemon has gone."""
        while not self.buffered():
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Unavailable(
                    "the connection to the daemon was lost; the container goes on",
                    hint="see `kestrel ps` and `kestrel logs`",
                )
            self._buffer += data
        end = HEADER + self._length()
        channel, payload = self._buffer[0], bytes(self._buffer[HEADER:end])
        del self._buffer[:end]
        return channel, payload

    def buffered(self) -> bool:
        """Say whether a whole frame waits in memory, where select(2) cannot see it."""
        return len(self._buffer) >= HEADER and len(self._buffer) >= HEADER + self._length()

    def _length(self) -> int:
        return int.from_bytes(self._buffer[4:HEADER], "big")

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def connect() -> bare.Socket:
    """Return a connection to the daemon, which is started first when none listens."""
    path = os.path.join(run_directory(), "kestrel.sock")
    connection = _try_connect(path)
    if connection is None:
        from kestrel.cli.launch import start_daemon

        start_daemon(running)
        connection = _try_connect(path)
    if connection is None:
        raise Unavailable("the daemon started but does not answer", hint="see its log: `kestrel status`")
    return connection


def running() -> bool:
    """Say whether a daemon listens now."""
    connection = _try_connect(os.path.join(run_directory(), "kestrel.sock"))
    if connection is not None:
        connection.close()
    return connection is not None


def to_error(value: "dict[str, Any]") -> KestrelError:
    """Turn an error message of the daemon back into the error it was."""
    kind = KINDS.get(value.get("kind", ""), Internal)
    return kind(value["message"], hint=value.get("hint"), **value.get("context", {}))


def _try_connect(path: str) -> "bare.Socket | None":
    connection = bare.Socket(bare.UNIX, bare.STREAM)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except PermissionError:
        connection.close()
        raise KINDS["permission-denied"](
            f"may not talk to the daemon at {path}", hint="run the command as root, for example with sudo"
        ) from None
    return connection


def _request(verb: str, body: "dict[str, Any]", *, version: str, headers: str) -> "tuple[bare.Socket, bare.Lines, int]":
    """Send a request; return the connection, its lines from behind the answer's head, and the answer's status."""
    for _ in range(ATTEMPTS):
        connection = connect()
        lines = bare.Lines(connection)
        try:
            _send(connection, verb, body, version=version, headers=headers)
            return connection, lines, _read_head(lines)
        except (ConnectionResetError, BrokenPipeError):
            # The daemon has just died with our request unread: only then does the kernel say reset instead of end
            # (unix_release_sock in its net/unix/af_unix.c). Nobody began to do it, so another daemon can.
            connection.close()
            time.sleep(PAUSE)
        except BaseException:
            connection.close()
            raise
    raise Unavailable("the daemon ends as soon as it has started", hint="see its log: `kestrel status`")


def _send(connection: bare.Socket, verb: str, body: "dict[str, Any]", *, version: str, headers: str) -> None:
    data = bare.encode(body)
    head = (
        f"POST /v1/{verb} HTTP/{version}\r\nHost: kestrel\r\nContent-Type: application/json\r\n"
        f"{headers}Content-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)


def _read_head(lines: bare.Lines) -> int:
    status_line = lines.next()
    if not status_line:
        raise Unavailable("the daemon closed the connection", hint="see `kestrel status`")
    while lines.next() not in (b"\r\n", b""):
        pass
    return int(status_line.split()[1])
