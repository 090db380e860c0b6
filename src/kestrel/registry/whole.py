"""An answer whose head and body were put together beforehand and leave in one write.

A manifest from memory is the most frequent answer of a registry, and most of its time went into assembling the same
head again. Only for HTTP/1.1 on a connection that stays open, and only while the client takes what it is sent: for
everybody else there is the ordinary way, which waits for a slow reader.
"""

import time
from collections.abc import Mapping
from email.utils import formatdate

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11

_UNREAD = 64 * 1024
_FORBIDDEN = frozenset("\r\n\0")


class Whole(web.StreamResponse):
    """Bytes that are a complete answer."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open, as `suits` made sure."""
        return True

    async def prepare(self, request: web.BaseRequest) -> "AbstractStreamWriter | None":
        """Write it."""
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        request.transport.write(self.data)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: everything has been written."""


def suits(request: web.BaseRequest) -> bool:
    """Whether a request can be answered in this way."""
    transport = request.transport
    return (
        request.version == HttpVersion11
        and request.keep_alive
        and transport is not None
        and transport.get_write_buffer_size() < _UNREAD
    )


def head(headers: Mapping[str, str], length: int) -> bytes:
    """Return the beginning of a 200 up to its Date; empty when a header cannot be sent as it is."""
    if any(_FORBIDDEN.intersection(value) or not value.isascii() for value in headers.values()):
        return b""
    lines = [f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": str(length)}.items()]
    return f"HTTP/1.1 200 OK\r\n{''.join(lines)}Date: ".encode()


class _Date:
    """The date of now as a header has it, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = b""

    def __call__(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._text = formatdate(now, usegmt=True).encode() + b"\r\n\r\n"
            self._second = now
        return self._text


date = _Date()
"""Return the rest of a head: the date of this second, and the empty line."""
