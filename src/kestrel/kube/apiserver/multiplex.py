"""SPDY streams over any pair of byte directions: a raw upgraded connection, or messages of a WebSocket.

`Multiplexer` runs the codec of `http.spdy` against a `Duplex`. The peer opens streams (`accept` hands them out), each
is read and written on its own, and half-close is kept: `read` returns empty bytes once the peer has sent its last.
A reader that does not read makes the peer wait, all streams together, for there is no flow control on the other side.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from aiohttp import WSMsgType, web

from kestrel.http import spdy
from kestrel.http.upgrade import RawStream

CHUNK = 32 * 1024
"""Bytes per data frame, as the peer's library sends."""
MAX_UNREAD = 1 << 20
"""Unread bytes of one stream after which the connection is no longer read."""
MAX_STREAMS = 1024


class Duplex(Protocol):
    """Bytes both ways; `read` returns empty bytes at the end."""

    async def read(self) -> bytes:
        """Return the next bytes."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the peer is slow."""
        ...

    async def close(self) -> None:
        """End both directions."""
        ...


class RawDuplex:
    """An upgraded connection."""

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        """Return the next bytes."""
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        await self._stream.write(data)

    async def close(self) -> None:
        """Send what is buffered and close."""
        self._stream.close()


class WebSocketDuplex:
    """Binary messages of a WebSocket, taken as one byte stream."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """Return the bytes of the next message; empty when the socket is closed."""
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return b""
            if message.data:
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        """Send one message."""
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        """Close the socket."""
        await self._socket.close()


class Stream:
    """One SPDY stream that the peer opened."""

    def __init__(self, owner: Multiplexer, identity: int, headers: Mapping[str, str], *, fin: bool) -> None:
        self.identity = identity
        self.headers = headers
        self._owner = owner
        self._received: deque[bytes] = deque()
        self._unread = 0
        self._ended = fin
        self._finished = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def read(self) -> bytes:
        """Return the next bytes, empty once the peer has sent its last (or the stream was reset)."""
        while not self._received:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._received.popleft()
        self._unread -= len(data)
        if self._unread <= MAX_UNREAD:
            self._room.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; does nothing after `finish` or when the connection is gone."""
        for start in range(0, len(data), CHUNK):
            if self._finished:
                return
            await self._owner.send(spdy.data_frame(self.identity, data[start : start + CHUNK]))

    async def finish(self) -> None:
        """Send no more: half-close."""
        if not self._finished:
            self._finished = True
            await self._owner.send(spdy.data_frame(self.identity, b"", fin=True))

    async def reset(self, code: int = spdy.CANCEL) -> None:
        """End the stream in both directions."""
        self._finished = True
        self.end()
        await self._owner.send(spdy.reset_frame(self.identity, code))

    async def take(self, data: bytes, *, fin: bool) -> None:
        """Queue bytes from the peer; waits while nobody reads them."""
        if data and not self._ended:
            self._received.append(data)
            self._unread += len(data)
            if self._unread > MAX_UNREAD:
                self._room.clear()
        if fin:
            self._ended = True
        self._changed.set()
        if not self._ended:
            await self._room.wait()

    def end(self) -> None:
        """No more will come from the peer."""
        self._ended = True
        self._changed.set()
        self._room.set()


class Multiplexer:
    """All streams of one connection. `run` reads it until it ends; `accept` hands out streams."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex
        self._codec = spdy.Codec()
        self._streams: dict[int, Stream] = {}
        self._new: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._closed = False

    async def run(self) -> None:
        """Read until the peer goes, or breaks the protocol."""
        try:
            while data := await self._duplex.read():
                for event in self._codec.feed(data):
                    await self._handle(event)
        except (ConnectionError, spdy.SpdyError):
            pass
        finally:
            self._closed = True
            for stream in self._streams.values():
                stream.end()
            self._new.put_nowait(None)

    async def accept(self) -> Stream | None:
        """Return the next stream the peer opens, None when the connection has ended."""
        return await self._new.get()

    async def send(self, frame: bytes) -> None:
        """Write one frame; a connection that is gone swallows it."""
        if not self._closed:
            with suppress(ConnectionError):
                await self._duplex.write(frame)

    def forget(self, stream: Stream) -> None:
        """Let go of a stream that is over in both directions."""
        self._streams.pop(stream.identity, None)

    async def close(self) -> None:
        """Say goodbye and close the connection."""
        await self.send(spdy.goaway_frame(max(self._streams, default=0)))
        self._closed = True
        with suppress(ConnectionError):
            await self._duplex.close()

    async def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamOpened():
                await self._open(event)
            case spdy.DataReceived(stream=identity, data=data, fin=fin):
                stream = self._streams.get(identity)
                if stream is not None:
                    await stream.take(data, fin=fin)
                    if data:
                        await self.send(spdy.window_frame(identity, len(data)))
            case spdy.HeadersReceived(stream=identity, fin=True) | spdy.StreamReset(stream=identity):
                stream = self._streams.get(identity)
                if stream is not None:
                    stream.end()
            case spdy.PingReceived(identity=identity):
                if identity % 2:
                    await self.send(spdy.ping_frame(identity))
            case _:
                pass

    async def _open(self, event: spdy.StreamOpened) -> None:
        if event.stream in self._streams or event.stream % 2 == 0 or len(self._streams) >= MAX_STREAMS:
            await self.send(spdy.reset_frame(event.stream, spdy.REFUSED_STREAM))
            return
        stream = Stream(self, event.stream, event.headers, fin=event.fin)
        self._streams[event.stream] = stream
        await self.send(self._codec.accept_stream(event.stream))
        self._new.put_nowait(stream)
