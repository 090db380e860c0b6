"""port-forward: TCP connections into a pod, behind SPDY streams or pairs of WebSocket channels.

Over SPDY (bare, or inside the messages of a WebSocket) the client opens two streams for every TCP connection: `error`,
half-closed at once, and `data`, both with the port and the same `requestid`. Over `v4.channel.k8s.io` it names the
ports in the query and gets one connection per port, on channel 2n with errors on 2n+1; both begin with the port in
two bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiohttp import WSMsgType, web

from kestrel.base.errors import KestrelError
from kestrel.http.channels import ChannelError, Channels, Closed, port_channels, port_greeting
from kestrel.kube.apiserver.multiplex import Multiplexer, Stream

PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
"""The WebSocket subprotocol whose messages are SPDY."""
CHUNK = 64 * 1024
PAIR_SECONDS = 30.0
"""How long the second stream of a pair may be late."""

Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def serve_streams(connection: Multiplexer, connect: Connect) -> None:
    """Serve pairs of SPDY streams until the connection ends."""
    pairs: dict[str, dict[str, Stream]] = {}
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(connection.run())
        tasks: set[asyncio.Task[None]] = set()
        while (stream := await connection.accept()) is not None:
            kind = stream.headers.get("streamtype", "").lower()
            request = stream.headers.get("requestid", "")
            if kind not in ("data", "error"):
                await stream.reset()
                continue
            pair = pairs.setdefault(request, {})
            pair[kind] = stream
            if len(pair) == 2:
                del pairs[request]
                task = group.create_task(_pair(connection, pair["data"], pair["error"], connect))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                asyncio.get_running_loop().call_later(PAIR_SECONDS, pairs.pop, request, None)
        reading.cancel()
        for task in tuple(tasks):
            task.cancel()


async def _pair(connection: Multiplexer, data: Stream, error: Stream, connect: Connect) -> None:
    """Serve one TCP connection."""
    try:
        try:
            port = int(data.headers.get("port", ""))
            reader, writer = await connect(port)
        except (KestrelError, OSError, ValueError) as failed:
            await error.write(f"an error occurred forwarding {data.headers.get('port')}: {failed}".encode())
            await error.finish()
            await data.finish()
            return
        await error.finish()
        await _exchange(data, reader, writer)
    finally:
        connection.forget(data)
        connection.forget(error)


async def _exchange(data: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both ways until both have ended; the client's end does not end what the pod still sends."""

    async def inward() -> None:
        while received := await data.read():
            writer.write(received)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def outward() -> None:
        while sent := await reader.read(CHUNK):
            await data.write(sent)
        await data.finish()

    forward = asyncio.create_task(inward())
    try:
        await outward()
    except OSError:
        await data.reset()
    finally:
        forward.cancel()
        await asyncio.wait([forward])
        if not forward.cancelled():
            forward.exception()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def serve_channels(
    socket: web.WebSocketResponse, channels: Channels, ports: Sequence[int], connect: Connect
) -> None:
    """Serve one TCP connection for each port over channel pairs until the client is gone or all have ended."""
    writers: dict[int, asyncio.StreamWriter] = {}
    opened: set[asyncio.Task[None]] = set()

    async def send(channel: int, data: bytes) -> None:
        message = channels.encode(channel, data)
        if channels.text:
            await socket.send_str(message.decode())
        else:
            await socket.send_bytes(message)

    async def outward(index: int, port: int) -> None:
        data, error = port_channels(index)
        await send(data, port_greeting(port))
        await send(error, port_greeting(port))
        try:
            reader, writers[data] = await connect(port)
            while received := await reader.read(CHUNK):
                await send(data, received)
        except (KestrelError, OSError) as failed:
            await send(error, f"an error occurred forwarding {port}: {failed}".encode())

    for index, port in enumerate(ports):
        opened.add(asyncio.create_task(outward(index, port)))
    incoming = asyncio.create_task(_inward(socket, channels, writers))
    try:
        outgoing = asyncio.create_task(_all(opened))
        await asyncio.wait([outgoing, incoming], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*opened, incoming):
            task.cancel()
        await asyncio.gather(*opened, incoming, return_exceptions=True)
        await outgoing
        for writer in writers.values():
            writer.close()
        await socket.close()


async def _all(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _inward(socket: web.WebSocketResponse, channels: Channels, writers: dict[int, asyncio.StreamWriter]) -> None:
    while True:
        message = await socket.receive()
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            return
        try:
            frame = channels.decode(message.data)
        except ChannelError:
            return
        if isinstance(frame, Closed):
            continue
        writer = writers.get(frame.channel)
        if writer is not None and frame.data:
            writer.write(frame.data)
            with suppress(OSError):
                await writer.drain()
