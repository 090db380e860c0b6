"""The shared HTTP client: an aiohttp session set up the way every caller here wants it, and errors as sentences.

Bytes are handed on raw (`auto_decompress=False`: digests are over what was sent), cookies are not kept, redirects and
statuses are the caller's business, and `~/.netrc` is not read (a registry gets the credentials that were meant for it
and no others). Proxies come from the usual environment variables through `proxy_for`.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from kestrel.base.errors import InvalidArgument, KestrelError, TimedOut, Unavailable

CLIENT_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What a request or the reading of an answer may raise; give it to `explain`."""

USER_AGENT = "kestrel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; None waits for ever. There is no limit on a whole transfer, only on silence."""

    connect: float | None = 15.0
    read: float | None = 60.0


def session(
    *,
    unix_socket: Path | None = None,
    tls: ssl.SSLContext | None = None,
    timeouts: Timeouts = Timeouts(),
    connections: int = 0,
    connections_per_host: int = 0,
    headers: Mapping[str, str] | None = None,
) -> aiohttp.ClientSession:
    """Return an open session; close it, or use `async with`. Call from inside the event loop.

    With `unix_socket` every request goes there, whatever its URL says. 0 connections means no limit.
    """
    connector: aiohttp.BaseConnector
    if unix_socket is not None:
        connector = aiohttp.UnixConnector(path=os.fspath(unix_socket), limit=connections)
    else:
        connector = aiohttp.TCPConnector(
            ssl=tls if tls is not None else True, limit=connections, limit_per_host=connections_per_host
        )
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect, sock_read=timeouts.read),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})},
        read_bufsize=256 * 1024,
        max_line_size=64 * 1024,
        max_field_size=64 * 1024,
    )


def proxy_for(url: str) -> str | None:
    """Return the proxy the environment asks for (`https_proxy`, `no_proxy`, ...), or None. Loopback never has one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(host):
        return None
    return proxy


def is_loopback(host: str) -> bool:
    """Is this name or literal address certainly this machine: `localhost`, 127.0.0.0/8, ::1?"""
    bare = host.strip("[]").lower().rstrip(".")
    if bare in ("localhost", "::1"):
        return True
    parts = bare.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isdigit() and int(part) < 256 for part in parts)


def explain(error: BaseException, url: str) -> KestrelError:
    """Turn what `CLIENT_ERRORS` caught into an error that names the host, the cause and what to do about it."""
    parts = urlsplit(url)
    where = parts.netloc or url
    if isinstance(error, KestrelError):
        return error
    if isinstance(error, asyncio.TimeoutError):
        return TimedOut(f"{where} did not answer in time", hint="is it overloaded, or a firewall dropping packets?")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unavailable(
            f"cannot find the address of {where}: name does not resolve",
            hint=f"check the spelling of {parts.hostname} and the nameservers in /etc/resolv.conf",
        )
    tls = _tls_failure(error, where)
    if tls is not None:
        return tls
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return Unavailable(f"cannot reach the proxy for {where}", hint="check http_proxy, https_proxy and no_proxy")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unavailable(f"cannot reach {where}: {_system(error.os_error)}", hint=_connect_hint(error.os_error))
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionError):
        return Unavailable(f"{where} closed the connection in the middle of an answer", hint="try again")
    address = _address_failure(error, url, where)
    if address is not None:
        return address
    if isinstance(error, aiohttp.ClientResponseError):
        return Unavailable(f"{where} does not speak HTTP as expected: {error.message}", hint="is the port right?")
    return Unavailable(f"cannot talk to {where}: {error or type(error).__name__}")


def _address_failure(error: BaseException, url: str, where: str) -> KestrelError | None:
    """Tell of addresses that nobody can be asked for: our own, or those that a server sends us to."""
    if isinstance(error, aiohttp.TooManyRedirects):
        return Unavailable(f"{where} sends us from address to address without end", hint="give the last address itself")
    if isinstance(error, aiohttp.RedirectClientError):
        return Unavailable(f"{where} sends us to {error}, which is no http(s) address", hint="give another address")
    if isinstance(error, aiohttp.InvalidURL):
        return InvalidArgument(f"{url} is no address of a server", hint="write http://HOST/PATH or https://HOST/PATH")
    return None


def _tls_failure(error: BaseException, where: str) -> KestrelError | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return Unavailable(
            f"the TLS certificate of {where} is not trusted: {cause}",
            hint="add its authority to the system's certificates, or list the host as insecure if you accept that",
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        reason = getattr(error, "os_error", error)
        word = getattr(reason, "reason", "") or str(reason)
        if word in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
            return Unavailable(f"{where} does not speak TLS", hint="if it serves plain HTTP, list the host as insecure")
        return Unavailable(f"TLS with {where} failed: {word}")
    return None


def _system(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "name does not resolve"
    if error.errno is None:
        return str(error) or "connection failed"
    return os.strerror(error.errno).lower()


def _connect_hint(error: OSError) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return "nothing listens there: is the server running, and is the port right?"
        case errno.ENETUNREACH | errno.EHOSTUNREACH:
            return "there is no route: check the network of this machine"
        case errno.ENOENT:
            return "the socket does not exist: is the server running?"
        case errno.EACCES:
            return "this user may not open the socket"
        case _:
            return "check the address and the network"
