"""Framed messages with descriptors, over a stream socket of the unix family.

A frame is a header (four bytes of length, two bytes for the number of descriptors, network order) and one JSON value.
Descriptors travel with the first byte of their frame (`man 7 unix`, SCM_RIGHTS). Every process of the runtime speaks
this: daemon to zygote, daemon to shim, shim to init.

`Decoder` and `encode` are pure; `Channel` blocks and is for those who have one peer; the shim's event loop and the
daemon's asyncio side drive the decoder themselves.
"""

from __future__ import annotations

import os
import struct

from kestrel.base import plainjson
from kestrel.linux import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Message = dict[str, Any]  # Any: raw JSON

HEADER = struct.Struct("!IH")
NUMBER = struct.Struct("i")  # a descriptor, as SCM_RIGHTS has it
LIMIT = 16 * 1024 * 1024  # bytes in a frame: a spec is some 20 KiB; more than this is not one of ours
MAX_DESCRIPTORS = 64  # in a frame; the kernel allows 253 (SCM_MAX_FD)


def encode(message: Message, descriptors: int = 0) -> bytes:
    """Return the frame of a message that will travel with that many descriptors."""
    body = plainjson.dumps(message).encode()
    return HEADER.pack(len(body), descriptors) + body


class Decoder:
    """Bytes and descriptors in, messages out. What it was given and did not hand on is closed by `close`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    def feed(self, data: bytes, descriptors: Sequence[int] = ()) -> list[tuple[Message, list[int]]]:
        """Return the messages that are now complete. Raises ValueError when the peer does not speak this protocol."""
        self._buffer += data
        self._descriptors += descriptors
        found = []
        while len(self._buffer) >= HEADER.size:
            length, count = HEADER.unpack_from(self._buffer)
            if length > LIMIT or count > MAX_DESCRIPTORS:
                raise ValueError(f"frame of {length} bytes and {count} descriptors is over the limit")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            message = plainjson.loads(self._buffer[HEADER.size : end].decode())
            del self._buffer[:end]
            if not isinstance(message, dict) or len(self._descriptors) < count:
                raise ValueError("frame is not an object, or lacks its descriptors")
            taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            found.append((message, taken))
        return found

    @property
    def empty(self) -> bool:
        """Whether no part of a message is here."""
        return not self._buffer and not self._descriptors

    def close(self) -> None:
        """Close descriptors that arrived without their message."""
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors = []


def receive(sock: sockets.Socket, size: int = 65536) -> tuple[bytes, list[int]]:
    """Read once: bytes (empty at the end) and the descriptors that came along, close-on-exec."""
    space = sockets.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    data, ancillary, _flags, _address = sock.recvmsg(size, space, sockets.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == sockets.SOL_SOCKET and kind == sockets.SCM_RIGHTS:
            whole = payload[: len(payload) - len(payload) % NUMBER.size]
            descriptors += (fd for (fd,) in NUMBER.iter_unpack(whole))
    return data, descriptors


def send_some(sock: sockets.Socket, data: bytes | memoryview, descriptors: Sequence[int] = ()) -> int:
    """Write once and return how many bytes went; the descriptors go with the first byte."""
    if not descriptors:
        return sock.send(data, sockets.MSG_NOSIGNAL)
    rights = b"".join(map(NUMBER.pack, descriptors))
    return sock.sendmsg([data], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, rights)], sockets.MSG_NOSIGNAL)


class Channel:
    """One end of a connection, blocking."""

    def __init__(self, sock: sockets.Socket) -> None:
        self.socket = sock
        self._decoder = Decoder()
        self._ready: list[tuple[Message, list[int]]] = []

    @property
    def buffered(self) -> bool:
        """Whether there is a message that has been read from the socket already, which then does not become ready."""
        return bool(self._ready)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message whole. Raises OSError when the peer is gone."""
        data = memoryview(encode(message, len(descriptors)))
        sent = send_some(self.socket, data, descriptors)
        while sent < len(data):
            sent += send_some(self.socket, data[sent:])

    def receive(self) -> tuple[Message, list[int]] | None:
        """Wait for a message and its descriptors; None when the peer has closed, or died with our words unread."""
        while not self._ready:
            try:
                data, descriptors = receive(self.socket)
            except ConnectionResetError:
                data, descriptors = b"", []
            if not data:
                self._decoder.close()
                return None
            self._ready = self._decoder.feed(data, descriptors)
        return self._ready.pop(0)

    def offer(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message to a peer that may be gone; reading then tells, both of us."""
        try:
            self.send(message, descriptors)
        except OSError:
            try:
                self.socket.shutdown(sockets.SHUT_RDWR)
            except OSError:
                pass  # it was gone

    def close(self) -> None:
        """Close the socket and whatever arrived without a message."""
        self._decoder.close()
        self.socket.close()


def pair() -> tuple[sockets.Socket, sockets.Socket]:
    """Return two connected stream sockets, both close-on-exec."""
    return sockets.pair(sockets.AF_UNIX, sockets.SOCK_STREAM)
