"""Serve HTTP on TCP ports and unix sockets, with and without TLS.

A door (registry, Kubernetes API, Docker API) hands over either an aiohttp `Application` or a bare handler, and says
where it wants to be heard. The server binds everything before it serves anything, so that a port in use is an error
of the start and not half a start. Stopping is graceful: no new connections, answers under way get `grace` seconds,
then they are cut off.

What protects us from a hostile or broken client is in `Limits`: the size of a request line and of a header, the
time in which a request head has to arrive (aiohttp's keep-alive timer runs from the accept until the head is
complete), the time a reader may leave our bytes untouched, and, in `chunks`, the time between two pieces of a body.
Request bodies are never decompressed here: what was sent is what is seen, and no bomb goes off.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from kestrel.base.errors import Conflict, InvalidArgument, KestrelError, PermissionDenied, TimedOut, Unavailable

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""A door without aiohttp's router: one coroutine for every request."""

_SUN_PATH = 107  # man 7 unix: sun_path is 108 bytes, the last of them the terminating zero
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", 18)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost us. Seconds and bytes."""

    head_seconds: float = 120.0
    """From the accept, or the last answer, until the next request head is complete. Go's clients drop an idle
    connection after 90 s; staying longer than they do means we never close one they are about to use."""
    line: int = 32 * 1024
    """Request line: a manifest put with dozens of `tag=` parameters is long."""
    header: int = 32 * 1024
    """One header field: a bearer token can be several kilobytes."""
    headers: int = 128
    grace_seconds: float = 5.0
    """How long answers under way may take once the server is told to stop."""
    stalled_seconds: float = 0.0
    """Drop a TCP peer that has taken none of our bytes for so long; 0 never does (a paused `logs -f` is no crime)."""
    backlog: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcp:
    """Listen on a TCP port; port 0 lets the kernel choose. `host` is a literal address or a name of this machine."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    reuse_port: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unix:
    """Listen on a unix socket; only those the mode lets through may connect."""

    path: Path
    mode: int = 0o600


Listener = Tcp | Unix


class Server:
    """One door on any number of listeners.

    Use `async with Server(application, [Tcp(port=5000)]) as server`, or `start` and `stop`.
    """

    def __init__(
        self,
        door: "web.Application | Handler",
        listeners: Sequence[Listener],
        *,
        limits: Limits = Limits(),
    ) -> None:
        self._listeners = tuple(listeners)
        self._limits = limits
        options: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": limits.head_seconds,
            "max_line_size": limits.line,
            "max_field_size": limits.header,
            "max_headers": limits.headers,
            "auto_decompress": False,
            "read_bufsize": 512 * 1024,  # fewer pauses of the socket while a layer comes in
        }
        self._door = door
        self._options = options
        self._runner: web.BaseRunner | None = None
        self._sockets: list[socket.socket] = []
        self._paths: list[tuple[Path, int]] = []
        self.addresses: tuple[str, ...] = ()
        """Where to reach the server: `http://127.0.0.1:5000`, `https://[::1]:6443`, `unix:///run/kestrel.sock`."""

    async def start(self) -> None:
        """Bind every listener, then serve. Raises Conflict when a port or socket is taken by someone else."""
        bound: list[tuple[Listener, socket.socket]] = []
        try:
            for listener in self._listeners:
                bound.append((listener, self._bind(listener)))  # noqa: PERF401 - what was bound is closed on error
        except BaseException:
            for _, sock in bound:
                sock.close()
            self._unlink()
            raise
        self._runner = self._make_runner()
        await self._runner.setup()
        for listener, sock in bound:
            tls = listener.tls if isinstance(listener, Tcp) else None
            await web.SockSite(self._runner, sock, ssl_context=tls, backlog=self._limits.backlog).start()
        self.addresses = tuple(_address(listener, sock) for listener, sock in bound)

    async def stop(self) -> None:
        """Stop listening, let answers under way finish within the grace period, then cut off the rest."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._unlink()

    def _make_runner(self) -> web.BaseRunner:
        grace = self._limits.grace_seconds
        if isinstance(self._door, web.Application):
            return web.AppRunner(self._door, handle_signals=False, shutdown_timeout=grace, **self._options)
        server = web.Server(self._door, **self._options)
        return web.ServerRunner(server, handle_signals=False, shutdown_timeout=grace)

    def _bind(self, listener: Listener) -> socket.socket:
        if isinstance(listener, Unix):
            sock = _bind_unix(listener)
            self._paths.append((listener.path, os.stat(listener.path).st_ino))
            return sock
        return _bind_tcp(listener, self._limits)

    def _unlink(self) -> None:
        for path, inode in self._paths:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == inode:  # a successor may have put its own there already
                    os.unlink(path)
        self._paths.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def chunks(request: web.BaseRequest, *, idle_seconds: float = 60.0) -> AsyncIterator[bytes]:
    """Yield the body as it comes.

    Raises TimedOut when nothing came for `idle_seconds`, Unavailable when the connection broke off.
    """
    loop = asyncio.get_running_loop()
    content = request.content
    _continue(request)
    try:
        async with asyncio.timeout(idle_seconds) as deadline:
            while data := await content.readany():
                deadline.reschedule(None)
                yield data
                deadline.reschedule(loop.time() + idle_seconds)
    except TimeoutError as error:
        raise TimedOut(f"no more of the request body came for {idle_seconds:.0f} s") from error
    except (web.RequestPayloadError, web.PayloadAccessError, OSError) as error:
        raise Unavailable("the connection broke before the whole request body had come") from error


def _continue(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body (RFC 9110 section 10.1.1).

    aiohttp's router does so before it calls a handler; a bare handler says it here, once it wants the body.
    """
    waits = request.headers.get("Expect", "").lower() == "100-continue"
    if waits and not isinstance(request, web.Request) and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def body(request: web.BaseRequest, limit: int, *, idle_seconds: float = 60.0) -> bytes | None:
    """Return the whole body, or None when it is longer than `limit` bytes."""
    if request.content_length is not None and request.content_length > limit:
        return None
    parts: list[bytes] = []
    size = 0
    async for part in chunks(request, idle_seconds=idle_seconds):
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


def _bind_tcp(listener: Tcp, limits: Limits) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except socket.gaierror as error:
        raise InvalidArgument(
            f"cannot listen on {listener.host!r}: {error.strerror}", hint="give an address of this machine"
        ) from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if limits.stalled_seconds:
            # man 7 tcp: set on the listener, inherited by what accept returns; counts a closed window too.
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(limits.stalled_seconds * 1000))
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _bind_error(error, f"{listener.host}:{listener.port}") from error
    return sock


def _bind_unix(listener: Unix) -> socket.socket:
    path = os.fspath(listener.path)
    if len(os.fsencode(path)) > _SUN_PATH:
        raise InvalidArgument(
            f"socket path {path} is longer than {_SUN_PATH} bytes", hint="choose a shorter data directory"
        )
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        # unix_bind() gives the new name the mode of the socket's own inode: there is no moment with a wider one.
        os.fchmod(sock.fileno(), listener.mode)
        sock.bind(path)
        os.chmod(path, listener.mode)  # the umask may have narrowed it
    except OSError as error:
        sock.close()
        raise _bind_error(error, path) from error
    return sock


def _clear_stale(path: str) -> None:
    """Remove a socket nobody listens on any more; raises Conflict when somebody does, or when it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"{path} exists and is not a socket", hint="remove it, or choose another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            raise _bind_error(error, path) from error
    raise Conflict(f"another process is listening on {path}", hint="stop it first, or choose another path")


def _bind_error(error: OSError, where: str) -> KestrelError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"{where} is already in use", hint="find its owner with `ss -lntp`, or choose another port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(f"not allowed to listen on {where}", hint="ports below 1024 need root")
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidArgument(f"{where} is not an address of this machine", hint="see `ip address`")
    return Unavailable(f"cannot listen on {where}: {os.strerror(error.errno or 0)}")


def _address(listener: Listener, sock: socket.socket) -> str:
    if isinstance(listener, Unix):
        return f"unix://{os.path.abspath(listener.path)}"
    host, port = sock.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if listener.tls else 'http'}://{name}:{port}"
