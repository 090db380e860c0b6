"""A connection leaves HTTP: raw bytes both ways, half-close, and clients that go away."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from kestrel.http.server import Server, Tcp
from kestrel.http.upgrade import Disconnect, Switched, switch

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
HEAD = b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def connected(handler: Handler):
    async with Server(handler, [Tcp()]) as server:
        host, port = server.addresses[0].removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()


async def upper(request: web.BaseRequest) -> web.StreamResponse:
    """Answers with what it got in capitals, and after the end of input with a goodbye."""
    stream = switch(request, {"Connection": "Upgrade", "Upgrade": "tcp"}, reason="UPGRADED")
    while data := await stream.read():
        await stream.write(data.upper())
    await stream.write(b"bye")
    stream.write_eof()
    return Switched()


async def test_an_upgraded_connection_carries_bytes_both_ways_and_outlives_the_end_of_input() -> None:
    async with connected(upper) as (reader, writer):
        writer.write(HEAD)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert b"Upgrade: tcp" in head
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.write_eof()
        assert await reader.read() == b"bye"


async def test_bytes_sent_right_behind_the_request_are_not_lost() -> None:
    async with connected(upper) as (reader, writer):
        writer.write(HEAD.replace(b"tcp", b"websocket") + b"early")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(5) == b"EARLY"


async def test_much_data_is_passed_on_to_a_slow_reader_unharmed() -> None:
    data = bytes(range(256)) * 20_000

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        stream = switch(request, {"Connection": "Upgrade", "Upgrade": "tcp"})
        for start in range(0, len(data), 65536):
            await stream.write(data[start : start + 65536])
        stream.write_eof()
        while await stream.read():
            pass
        return Switched()

    async with connected(send) as (reader, writer):
        writer.write(HEAD)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        assert await reader.read() == data


async def test_a_handler_learns_that_its_client_has_gone() -> None:
    gone = asyncio.Event()

    async def wait(request: web.BaseRequest) -> web.StreamResponse:
        with Disconnect(request) as connection:
            await connection.gone.wait()
        gone.set()
        return web.Response()

    async with connected(wait) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.02)
        assert not gone.is_set()
    await asyncio.wait_for(gone.wait(), 5)


async def test_the_connection_is_aiohttps_again_afterwards() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        with Disconnect(request):
            await asyncio.sleep(0)
        return web.Response(text="ok")

    async with connected(answer) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(2) == b"ok"
