"""The client session's manners, and errors as sentences."""

import asyncio
import socket

import aiohttp
import pytest
from aiohttp import web

from kestrel.base.errors import InvalidArgument, TimedOut, Unavailable
from kestrel.http.client import CLIENT_ERRORS, Timeouts, explain, is_loopback, proxy_for, session
from kestrel.http.server import Server, Tcp


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.8.7", "::1", "[::1]"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["127.evil.example", "1270.0.0.1", "localhost.example", "127.0.0.256", "10.0.0.1", ""])
def test_hosts_that_only_look_like_loopback_are_not(host: str) -> None:
    assert not is_loopback(host)


def test_the_proxy_comes_from_the_environment_but_never_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("https://registry.example/v2/") is None
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("https://registry.example/v2/") == "http://proxy:3128"
    assert proxy_for("https://a.inside.example/") is None
    assert proxy_for("https://127.0.0.1:5000/") is None
    assert proxy_for("http://registry.example/") is None


async def test_nothing_listening_is_said_with_a_remedy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    async with session() as client:
        with pytest.raises(CLIENT_ERRORS) as caught:
            await client.get(url)
    error = explain(caught.value, url)
    assert isinstance(error, Unavailable)
    assert "connection refused" in str(error)
    assert "is the server running" in (error.hint or "")


async def test_a_name_that_does_not_resolve_is_said() -> None:
    async with session() as client:
        with pytest.raises(CLIENT_ERRORS) as caught:
            await client.get("http://no-such-host.invalid/")
    assert "does not resolve" in str(explain(caught.value, "http://no-such-host.invalid/"))


async def test_a_silent_server_times_out() -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(10)
        return web.Response()

    async with Server(silent, [Tcp()]) as server, session(timeouts=Timeouts(read=0.1)) as client:
        with pytest.raises(CLIENT_ERRORS) as caught:
            await client.get(server.addresses[0])
        assert isinstance(explain(caught.value, server.addresses[0]), TimedOut)


async def test_a_server_that_hangs_up_and_one_that_is_no_http_server_are_told_apart() -> None:
    for answer, words in ((b"", "closed the connection"), (b"220 mail ready\r\n", "does not speak HTTP")):

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, session() as client:
            with pytest.raises(CLIENT_ERRORS) as caught:
                await client.get(url)
        assert words in str(explain(caught.value, url))


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/", "sends us from address to address without end"),
        ("file:///etc/passwd", "sends us to file:///etc/passwd, which is no http(s) address"),
    ],
)
async def test_redirects_that_lead_nowhere_are_said(location: str, words: str) -> None:
    async def redirect(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": location})

    async with Server(redirect, [Tcp()]) as server, session() as client:
        url = server.addresses[0]
        with pytest.raises(CLIENT_ERRORS) as caught:
            await client.get(url)
        assert str(explain(caught.value, url)) == f"{url.removeprefix('http://').rstrip('/')} {words}"


async def test_an_address_without_a_host_is_our_own_fault() -> None:
    async with session() as client:
        with pytest.raises(CLIENT_ERRORS) as caught:
            await client.get("http:///x")
    error = explain(caught.value, "http:///x")
    assert isinstance(error, InvalidArgument)
    assert str(error) == "http:///x is no address of a server"


async def test_bodies_come_as_they_were_sent_and_cookies_are_not_kept() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert "Cookie" not in request.headers
        assert request.headers["Accept-Encoding"] == "identity"
        answer = web.Response(body=b"\x1f\x8bnot really gzip", headers={"Content-Encoding": "gzip"})
        answer.set_cookie("a", "b")
        return answer

    async with Server(handler, [Tcp()]) as server, session() as client:
        for _ in range(2):
            async with client.get(server.addresses[0]) as answer:
                assert await answer.read() == b"\x1f\x8bnot really gzip"
        assert isinstance(client, aiohttp.ClientSession)
