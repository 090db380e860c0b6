"""The server: where it listens, what it refuses, and how it stops. Real sockets on loopback and in a directory."""

import asyncio
import gzip
import os
import socket
import stat
import time
from pathlib import Path

import pytest
from aiohttp import ClientConnectorError, web

from kestrel.base.errors import Conflict, InvalidArgument, TimedOut, Unavailable
from kestrel.http.client import CLIENT_ERRORS, explain, session
from kestrel.http.server import Limits, Server, Tcp, Unix, body, chunks


async def hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=f"hello {request.path}")


async def test_one_door_answers_on_a_port_and_on_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with Server(hello, [Tcp(), Unix(path=path)]) as server:
        assert server.addresses[1] == f"unix://{path}"
        async with session() as client, client.get(server.addresses[0] + "/a") as answer:
            assert await answer.text() == "hello /a"
        async with session(unix_socket=path) as client, client.get("http://kestrel/b") as answer:
            assert await answer.text() == "hello /b"


async def test_an_application_with_its_own_routes_is_served_and_cleaned_up() -> None:
    ended = []
    application = web.Application()
    application.router.add_get("/x", hello)

    async def end(_: web.Application) -> None:
        ended.append(True)

    application.on_cleanup.append(end)
    async with Server(application, [Tcp()]) as server, session() as client:
        async with client.get(server.addresses[0] + "/x") as answer:
            assert answer.status == 200
        async with client.get(server.addresses[0] + "/y") as answer:
            assert answer.status == 404
    assert ended == [True]


async def test_the_socket_is_private_whatever_the_umask_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    before = os.umask(0)
    try:
        async with Server(hello, [Unix(path=path)]):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_socket_left_by_a_dead_server_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with Server(hello, [Unix(path=path)]):
        with pytest.raises(Conflict, match="another process is listening"):
            await Server(hello, [Unix(path=path)]).start()
        assert path.exists()


async def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(Conflict, match="not a socket"):
        await Server(hello, [Unix(path=path)]).start()
    assert path.read_text() == "data"


async def test_a_taken_port_is_named_and_nothing_else_stays_bound(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with Server(hello, [Tcp()]) as server:
        port = int(server.addresses[0].rsplit(":", 1)[1])
        with pytest.raises(Conflict, match=f"127.0.0.1:{port} is already in use"):
            await Server(hello, [Unix(path=path), Tcp(port=port)]).start()
    assert not path.exists()


async def test_an_address_of_another_machine_and_a_path_too_long_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"192\.0\.2\.1"):
        await Server(hello, [Tcp(host="192.0.2.1")]).start()
    with pytest.raises(InvalidArgument, match="longer than 107"):
        await Server(hello, [Unix(path=tmp_path / ("x" * 120))]).start()


async def test_stopping_lets_an_answer_finish_and_cuts_off_one_that_takes_for_ever() -> None:
    entered = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        entered.set()
        await asyncio.sleep(0.2 if request.path == "/short" else 60)
        return web.Response(text="done")

    server = Server(slow, [Tcp()], limits=Limits(grace_seconds=0.6))
    await server.start()
    async with session() as client:
        short = asyncio.create_task(client.get(server.addresses[0] + "/short"))
        await entered.wait()
        entered.clear()
        long = asyncio.create_task(client.get(server.addresses[0] + "/long"))
        await entered.wait()
        begun = time.monotonic()
        await server.stop()
        assert time.monotonic() - begun < 5
        async with await short as answer:
            assert await answer.text() == "done"
        with pytest.raises(CLIENT_ERRORS):
            await long
        with pytest.raises(ClientConnectorError) as caught:
            await client.get(server.addresses[0])
    assert "connection refused" in str(explain(caught.value, server.addresses[0]))


async def test_a_client_that_never_finishes_its_request_head_is_dropped() -> None:
    async with Server(hello, [Tcp()], limits=Limits(head_seconds=0.2)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.addresses[0].rsplit(":", 1)[1]))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await writer.wait_closed()


async def test_a_header_beyond_the_limit_is_a_bad_request() -> None:
    async with Server(hello, [Tcp()], limits=Limits(header=1000)) as server, session() as client:
        answer = await client.get(server.addresses[0], headers={"X-Long": "x" * 2000})
        assert answer.status == 400
        answer.release()


async def test_a_body_that_stops_coming_times_out_and_one_that_breaks_off_is_noticed() -> None:
    seen: asyncio.Queue[BaseException] = asyncio.Queue()

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        try:
            async for _ in chunks(request, idle_seconds=0.2):
                pass
        except (TimedOut, Unavailable) as error:
            seen.put_nowait(error)
            raise web.HTTPRequestTimeout from error
        return web.Response()

    async with Server(take, [Tcp()]) as server:
        for breaks_off, kind in ((False, TimedOut), (True, Unavailable)):
            _, writer = await asyncio.open_connection("127.0.0.1", int(server.addresses[0].rsplit(":", 1)[1]))
            writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
            await writer.drain()
            if breaks_off:
                await asyncio.sleep(0.05)
                writer.close()
                await writer.wait_closed()
            assert isinstance(await asyncio.wait_for(seen.get(), 5), kind)
            writer.close()


async def test_bodies_are_bounded_and_never_decompressed() -> None:
    async def take(request: web.BaseRequest) -> web.StreamResponse:
        data = await body(request, 100)
        return web.Response(body=data) if data is not None else web.Response(status=413)

    squeezed = gzip.compress(b"x" * 1000)
    async with Server(take, [Tcp()]) as server, session() as client:
        headers = {"Content-Encoding": "gzip"}
        async with client.put(server.addresses[0], data=squeezed, headers=headers) as answer:
            assert await answer.read() == squeezed
        async with client.put(server.addresses[0], data=b"x" * 101) as answer:
            assert answer.status == 413

        async def endless() -> object:
            for _ in range(20):
                yield b"x" * 10

        async with client.put(server.addresses[0], data=endless()) as answer:
            assert answer.status == 413


async def test_a_client_that_expects_100_continue_is_told_to_go_on() -> None:
    async def take(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=await body(request, 100))

    async with Server(take, [Tcp()]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.addresses[0].rsplit(":", 1)[1]))
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await asyncio.wait_for(reader.readuntil(b"abc"), 5)).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Content-Length: 3\r\nContent-Length: 4",
        b"Content-Length: +3",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: chunked, identity",
    ],
)
async def test_a_request_whose_length_is_in_doubt_is_refused(head: bytes) -> None:
    reached: list[str] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        reached.append(request.path)
        return web.Response(body=await body(request, 100))

    async with Server(note, [Tcp()]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.addresses[0].rsplit(":", 1)[1]))
        writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\nabcGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 400 " in (await asyncio.wait_for(reader.read(), 5))[:16]
        writer.close()
        await writer.wait_closed()
    assert "/smuggled" not in reached
