"""Take a connection away from HTTP: `101 Switching Protocols` and raw bytes from then on, half-close included.

aiohttp has no public way to do this, so `switch` gives the transport a protocol of ours before it writes the 101;
bytes that aiohttp had already read behind the request head are handed over. The aiohttp handler then has to
return `Switched`, a response that writes nothing; aiohttp closes the transport when the handler has returned, so
the handler runs for as long as the stream does.

A peer that shuts down its sending side is answered with end-of-file from `read` and can still be written to
(asyncio keeps the transport open as `eof_received` returns True). TLS has no half-close in asyncio: there
end-of-file ends both directions.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import Self

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from kestrel.base.errors import Unavailable

HIGH_WATER = 256 * 1024
"""Unread bytes after which the peer is made to wait."""


class RawStream(asyncio.Protocol):
    """Both directions of a connection that has left HTTP."""

    def __init__(self, transport: asyncio.Transport, former: asyncio.Protocol, early: bytes = b"") -> None:
        self._transport = transport
        self._former = former
        self._half_close = transport.get_extra_info("sslcontext") is None
        self._received = bytearray(early)
        self._eof = False
        self._lost = False
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def data_received(self, data: bytes) -> None:  # noqa: D102 - asyncio's callback
        self._received += data
        if len(self._received) > HIGH_WATER and not self._reading_paused:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def eof_received(self) -> bool:  # noqa: D102 - asyncio's callback
        self._eof = True
        self._wake()
        return self._half_close

    def connection_lost(self, exc: "Exception | None") -> None:  # noqa: D102 - asyncio's callback
        self._eof = self._lost = True
        self._writable.set()
        self._wake()
        self._former.connection_lost(exc)  # aiohttp keeps a list of its connections

    def pause_writing(self) -> None:  # noqa: D102 - asyncio's callback
        self._writable.clear()

    def resume_writing(self) -> None:  # noqa: D102 - asyncio's callback
        self._writable.set()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def read(self) -> bytes:
        """Return what has come, waiting for at least one byte; empty when the peer sends no more. One reader."""
        while not self._received and not self._eof:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = bytes(self._received)
        self._received.clear()
        if self._reading_paused and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the peer is slow; raises ConnectionResetError once it is gone."""
        if self._lost:
            raise ConnectionResetError("the peer has closed the connection")
        self._transport.write(data)
        await self._writable.wait()

    def write_eof(self) -> None:
        """Send no more; the peer sees end-of-file and can still send. Closes instead where TLS forbids it."""
        if self._half_close:
            self._transport.write_eof()
        else:
            self._transport.close()

    def close(self) -> None:
        """Send what is buffered and close."""
        self._transport.close()


class Switched(web.Response):
    """What a handler returns after `switch`: there is nothing left to say in HTTP."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> "AbstractStreamWriter | None":  # noqa: ARG002
        """Write nothing: the head went out with the switch."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


def switch(
    request: web.BaseRequest,
    headers: Mapping[str, str],
    *,
    status: int = 101,
    reason: str = "",
) -> RawStream:
    """Answer with this head and return the raw stream. `headers` are sent as they are, `Connection` and all.

    With a status other than 101 the body of the answer is the raw stream (Docker's attach without upgrade).
    """
    transport = request.transport
    if not isinstance(transport, asyncio.Transport):
        raise Unavailable("the connection was closed before it could be upgraded")
    protocol = request.protocol
    early, protocol._message_tail = protocol._message_tail, b""
    stream = RawStream(transport, protocol, early)
    transport.set_protocol(stream)
    if protocol._reading_paused:
        transport.resume_reading()
    lines = [f"HTTP/1.1 {status} {reason or HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    return stream


class Disconnect(asyncio.Protocol):
    """Stands between a connection and aiohttp, and tells when the client has gone.

    aiohttp lets a handler find out only when it writes; a watch on something quiet would stay for ever. Every
    callback is handed on unchanged. Use it as a context manager around the part that waits; `gone` is set then.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self.gone = asyncio.Event()
        self._transport = request.transport
        self._former = request.protocol
        if self._transport is None:
            self.gone.set()

    def __enter__(self) -> Self:
        if self._transport is not None:
            self._transport.set_protocol(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._transport is not None and not self.gone.is_set():
            self._transport.set_protocol(self._former)

    def data_received(self, data: bytes) -> None:  # noqa: D102 - asyncio's callback
        self._former.data_received(data)

    def eof_received(self) -> None:  # noqa: D102 - asyncio's callback
        self._former.eof_received()

    def connection_lost(self, exc: "Exception | None") -> None:  # noqa: D102 - asyncio's callback
        self.gone.set()
        self._former.connection_lost(exc)

    def pause_writing(self) -> None:  # noqa: D102 - asyncio's callback
        self._former.pause_writing()

    def resume_writing(self) -> None:  # noqa: D102 - asyncio's callback
        self._former.resume_writing()


async def while_connected(request: web.BaseRequest, work: Coroutine[object, object, None]) -> bool:
    """Run `work` until it is done (True), or cancel it because the client has gone (False)."""
    with Disconnect(request) as connection:
        task = asyncio.create_task(work)
        gone = asyncio.create_task(connection.gone.wait())
        try:
            await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            task.cancel()
            await asyncio.wait([task, gone])
    if task.cancelled():
        return False
    task.result()
    return True
