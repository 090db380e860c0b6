"""exec and attach: a `Session` of the node behind WebSocket channels or SPDY streams.

Both wires have the same five channels: stdin, stdout, stderr, error and resize. `Wire` is what they have in common,
and `serve` moves bytes between a wire and a session until the process has ended, then says how it ended on the error
channel: a Status whose reason `NonZeroExitCode` carries the exit code (older clients get a sentence).

A client that goes away closes the session; a session whose output ends closes the connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from aiohttp import WSMsgType, web

from kestrel.base.errors import KestrelError
from kestrel.http.channels import ERROR, RESIZE, STDIN, ChannelError, Channels, Closed
from kestrel.kube.api import status
from kestrel.kube.api.scheme import JSONObject
from kestrel.kube.apiserver.backends import STDERR, STDOUT, Session, StreamOptions
from kestrel.kube.apiserver.multiplex import Multiplexer, Stream

OPEN_SECONDS = 30.0
"""How long a SPDY client may take to open its streams."""

SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
"""Stream protocols served over SPDY, best first. v5 adds nothing there: SPDY has half-close."""

Start = Callable[[], Awaitable[Session]]


class Wire(Protocol):
    """A client's end of an exec."""

    structured: bool
    """Whether the error channel takes a Status object."""

    async def receive(self) -> tuple[int, bytes | None] | None:
        """Return (channel, bytes), (channel, None) when that channel has ended, or None when the client is gone."""
        ...

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


class WebSocketWire:
    """Channels in the messages of a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, channels: Channels) -> None:
        self._socket = socket
        self._channels = channels
        self.structured = channels.structured

    async def receive(self) -> tuple[int, bytes | None] | None:
        """Return what comes next; see `Wire`."""
        message = await self._socket.receive()
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            return None
        try:
            frame = self._channels.decode(message.data)
        except ChannelError:
            return None
        return (frame.channel, None) if isinstance(frame, Closed) else (frame.channel, frame.data)

    async def send(self, channel: int, data: bytes) -> None:
        """Send one message."""
        message = self._channels.encode(channel, data)
        if self._channels.text:
            await self._socket.send_str(message.decode())
        else:
            await self._socket.send_bytes(message)

    async def close(self) -> None:
        """Close the socket."""
        await self._socket.close()


class SpdyWire:
    """Streams of a SPDY connection, named by their `streamtype`."""

    _NAMES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}

    def __init__(self, connection: Multiplexer, *, structured: bool) -> None:
        self._connection = connection
        self._streams: dict[int, Stream] = {}
        self._incoming: asyncio.Queue[tuple[int, bytes | None] | None] = asyncio.Queue(16)
        self._readers: list[asyncio.Task[None]] = []
        self.structured = structured

    async def open(self, expected: set[int]) -> bool:
        """Wait until the client has opened the streams that are expected; False when it does not."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                while not expected <= self._streams.keys():
                    stream = await self._connection.accept()
                    if stream is None:
                        return False
                    channel = self._NAMES.get(stream.headers.get("streamtype", "").lower())
                    if channel is None:
                        await stream.reset()
                        continue
                    self._streams[channel] = stream
        except TimeoutError:
            return False
        for channel in (STDIN, RESIZE):
            if channel in self._streams:
                self._readers.append(asyncio.create_task(self._read(channel, self._streams[channel])))
        self._readers.append(asyncio.create_task(self._watch()))
        return True

    async def _read(self, channel: int, stream: Stream) -> None:
        while data := await stream.read():
            await self._incoming.put((channel, data))
        await self._incoming.put((channel, None))

    async def _watch(self) -> None:
        while await self._connection.accept() is not None:
            pass
        await self._incoming.put(None)

    async def receive(self) -> tuple[int, bytes | None] | None:
        """Return what comes next; see `Wire`."""
        return await self._incoming.get()

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a stream; one that the client did not open swallows them."""
        stream = self._streams.get(channel)
        if stream is not None:
            await stream.write(data)

    async def close(self) -> None:
        """Half-close all streams, then the connection."""
        for task in self._readers:
            task.cancel()
        if self._readers:
            await asyncio.wait(self._readers)
        for stream in self._streams.values():
            await stream.finish()
        await self._connection.close()


def expected_channels(options: StreamOptions) -> set[int]:
    """Return the streams a SPDY client opens for these options."""
    found = {ERROR}
    if options.stdin:
        found.add(STDIN)
    if options.stdout:
        found.add(STDOUT)
    if options.stderr and not options.tty:
        found.add(STDERR)
    return found


async def serve(wire: Wire, start: Start) -> None:
    """Start a session, move bytes both ways until it has ended, report how, and close."""
    try:
        session = await start()
    except KestrelError as error:
        await _report(wire, status.failure(error))
        await wire.close()
        return
    output = asyncio.create_task(_pump_out(session, wire))
    incoming = asyncio.create_task(_pump_in(session, wire))
    try:
        await asyncio.wait([output, incoming], return_when=asyncio.FIRST_COMPLETED)
        if incoming.done() and not output.done():
            return  # the client is gone: the session is closed below
        output.result()
        await _report(wire, _ended(await session.wait()))
    except ConnectionError:
        pass
    finally:
        for task in (output, incoming):
            task.cancel()
        await asyncio.wait([output, incoming])
        for task in (output, incoming):
            if not task.cancelled():
                task.exception()
        await session.close()
        with suppress(ConnectionError):
            await wire.close()


async def _pump_out(session: Session, wire: Wire) -> None:
    while (output := await session.read()) is not None:
        channel, data = output
        if data:
            await wire.send(channel, data)


async def _pump_in(session: Session, wire: Wire) -> None:
    """Hand input to the session until the client is gone."""
    while (incoming := await wire.receive()) is not None:
        channel, data = incoming
        if channel == STDIN:
            if data is None:
                await session.close_stdin()
            elif data:
                await session.write(data)
        elif channel == RESIZE and data:
            size = _size(data)
            if size is not None:
                await session.resize(*size)


def _size(data: bytes) -> tuple[int, int] | None:
    """Read `{"Width":80,"Height":24}`; clients send one object per message, or lines of them."""
    try:
        found = json.loads(data.splitlines()[-1])
        width, height = int(found["Width"]), int(found["Height"])
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return (width, height) if 0 < width < 65536 and 0 < height < 65536 else None


def _ended(code: int) -> JSONObject:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _report(wire: Wire, ended: JSONObject) -> None:
    if wire.structured:
        await wire.send(ERROR, json.dumps(ended, separators=(",", ":")).encode())
    elif ended["status"] != "Success":
        await wire.send(ERROR, str(ended["message"]).encode())
