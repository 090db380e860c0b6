"""What the API server passes on to the node: logs, exec, attach and port-forward.

Here the request is understood and the pod and container are found; `NodeBackend` does the work. exec, attach and
port-forward come as GET with a WebSocket handshake or as POST with an upgrade to SPDY/3.1, and must be answered on
either. An exec that cannot be started is reported on the error channel of the upgraded connection, so that a client
that falls back from WebSocket to SPDY on a refused handshake does not try twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web
from multidict import MultiMapping

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.http.channels import Channels, negotiate
from kestrel.http.upgrade import RawStream, Switched, switch, while_connected
from kestrel.kube.api import meta, status
from kestrel.kube.api.scheme import JSONObject
from kestrel.kube.apiserver import portforward
from kestrel.kube.apiserver.backends import LogOptions, NodeBackend, Session, StreamOptions
from kestrel.kube.apiserver.multiplex import Multiplexer, RawDuplex, WebSocketDuplex
from kestrel.kube.apiserver.remotecommand import (
    SPDY_PROTOCOLS,
    SpdyWire,
    Start,
    WebSocketWire,
    expected_channels,
    serve,
)
from kestrel.kube.apiserver.requests import boolean, integer

_STREAM_PROTOCOL = "X-Stream-Protocol-Version"


class Node:
    """Requests below a pod that need its containers."""

    def __init__(self, backend: NodeBackend | None) -> None:
        self._backend = backend

    @property
    def backend(self) -> NodeBackend:
        """The node; raises Unavailable while there is none."""
        if self._backend is None:
            raise status.unavailable("no node is connected to this API server")
        return self._backend

    async def logs(self, request: web.Request, pod: JSONObject) -> web.StreamResponse:
        """Answer `pods/log`."""
        options = log_options(pod, request.query)
        if options.limit_bytes == 0:
            return web.Response(content_type="text/plain")
        chunks = await self.backend.logs(pod, options)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        try:
            await response.prepare(request)
            with suppress(ConnectionError):
                if await while_connected(request, _send_log(response, chunks, options.limit_bytes)):
                    await response.write_eof()
        finally:
            await _close(chunks)
        return response

    async def stream(self, request: web.Request, pod: JSONObject, subresource: str) -> web.StreamResponse:
        """Answer `pods/exec` and `pods/attach`."""
        options = stream_options(pod, request.query, subresource)
        backend = self.backend

        async def start() -> Session:
            opened = backend.exec if subresource == "exec" else backend.attach
            return await opened(pod, options)

        if _is_websocket(request):
            return await _websocket_stream(request, start)
        return await _spdy_stream(request, options, start)

    async def forward(self, request: web.Request, pod: JSONObject) -> web.StreamResponse:
        """Answer `pods/portforward`."""
        backend = self.backend
        if (pod.get("status") or {}).get("phase") != "Running":
            phase = (pod.get("status") or {}).get("phase", "Unknown")
            raise status.bad_request(f"unable to forward port because pod is not running. Current status={phase}")

        async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await backend.port_forward(pod, port)

        if not _is_websocket(request):
            raw = _switch_to_spdy(request, (portforward.PROTOCOL,))
            await portforward.serve_streams(Multiplexer(RawDuplex(raw)), connect)
            return Switched()
        if portforward.TUNNEL in _offered(request):
            socket = web.WebSocketResponse(protocols=(portforward.TUNNEL,), compress=False)
            await socket.prepare(request)
            await portforward.serve_streams(Multiplexer(WebSocketDuplex(socket)), connect)
            await socket.close()
            return socket
        ports = _ports(request.query)
        socket, channels = await _accept_channels(request)
        await portforward.serve_channels(socket, channels, ports, connect)
        return socket


async def _websocket_stream(request: web.Request, start: Start) -> web.StreamResponse:
    socket, channels = await _accept_channels(request)
    await serve(WebSocketWire(socket, channels), start)
    return socket


async def _spdy_stream(request: web.Request, options: StreamOptions, start: Start) -> web.StreamResponse:
    raw = _switch_to_spdy(request, SPDY_PROTOCOLS)
    chosen = _stream_protocol(request, SPDY_PROTOCOLS)
    connection = Multiplexer(RawDuplex(raw))
    reading = asyncio.create_task(connection.run())
    wire = SpdyWire(connection, structured=chosen == SPDY_PROTOCOLS[0])
    try:
        if await wire.open(expected_channels(options)):
            await serve(wire, start)
    finally:
        await connection.close()
        reading.cancel()
        await asyncio.wait([reading])
    return Switched()


def log_options(pod: JSONObject, query: MultiMapping[str]) -> LogOptions:
    """Read the query of `pods/log`; raises InvalidArgument."""
    tail, since, limit = integer(query, "tailLines"), integer(query, "sinceSeconds"), integer(query, "limitBytes")
    moment = meta.parse_time(query.get("sinceTime"))
    errors = []
    if tail is not None and tail < 0:
        errors.append(status.invalid("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        errors.append(status.invalid("limitBytes", limit, "must be greater than 0"))
    if since is not None and moment is not None:
        errors.append(
            status.forbidden_field("sinceSeconds", "at most one of `sinceTime` or `sinceSeconds` may be specified")
        )
    elif since is not None and since < 1:
        errors.append(status.invalid("sinceSeconds", since, "must be greater than 0"))
    if query.get("sinceTime") and moment is None:
        raise status.bad_request(f"sinceTime is not an RFC 3339 time: {query['sinceTime']}")
    stream = query.get("stream") or "All"
    if stream not in ("All", "Stdout", "Stderr"):
        errors.append(status.not_supported("stream", stream, ("All", "Stdout", "Stderr")))
    if errors:
        message = f'PodLogOptions "{meta.name(pod)}" is invalid: {"; ".join(str(error) for error in errors)}'
        causes = {"kind": "PodLogOptions", "name": meta.name(pod), "causes": [error.cause() for error in errors]}
        raise InvalidArgument(message, status=status.status(422, "Invalid", message, causes))
    return LogOptions(
        container=container_name(pod, query.get("container", "")),
        follow=boolean(query.get("follow", "")),
        previous=boolean(query.get("previous", "")),
        timestamps=boolean(query.get("timestamps", "")),
        tail_lines=tail,
        since_seconds=since,
        since_time=moment,
        limit_bytes=limit,
        stream=stream,
    )


def stream_options(pod: JSONObject, query: MultiMapping[str], subresource: str) -> StreamOptions:
    """Read the query of `pods/exec` or `pods/attach`; raises InvalidArgument."""
    command = tuple(query.getall("command", ()))
    flags = {name: boolean(query.get(name, "")) for name in ("stdin", "stdout", "stderr", "tty")}
    if not (flags["stdin"] or flags["stdout"] or flags["stderr"]):
        raise status.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if subresource == "exec" and not command:
        raise status.bad_request("you must specify at least one command for the container")
    container = container_name(pod, query.get("container", ""))
    return StreamOptions(container=container, command=command if subresource == "exec" else (), **flags)


def container_name(pod: JSONObject, wanted: str) -> str:
    """Return the container that is meant; raises InvalidArgument with the choices when that is not clear."""
    spec, name = pod.get("spec") or {}, meta.name(pod)
    ordinary = [str(c["name"]) for c in spec.get("containers") or ()]
    initial = [str(c["name"]) for c in spec.get("initContainers") or ()]
    added = [str(c["name"]) for c in spec.get("ephemeralContainers") or ()]
    if wanted:
        if wanted not in (*ordinary, *initial, *added):
            raise status.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(ordinary) == 1:
        return ordinary[0]
    choices = f"choose one of: [{' '.join(ordinary)}]"
    if initial:
        choices += f" or one of the init containers: [{' '.join(initial)}]"
    if added:
        choices += f" or one of the ephemeral containers: [{' '.join(added)}]"
    raise status.bad_request(f"a container name must be specified for pod {name}, {choices}")


def _ports(query: MultiMapping[str]) -> list[int]:
    found = [part for text in query.getall("ports", ()) for part in text.split(",") if part]
    try:
        ports = [int(text) for text in found]
    except ValueError:
        raise status.bad_request(f"ports must be numbers: {','.join(found)}") from None
    if not ports or any(not 0 < port < 65536 for port in ports):
        raise status.bad_request("you must specify at least 1 port between 1 and 65535")
    return ports


def _is_websocket(request: web.Request) -> bool:
    return "websocket" in request.headers.get("Upgrade", "").lower()


def _offered(request: web.Request) -> list[str]:
    lines = request.headers.getall("Sec-WebSocket-Protocol", ())
    return [word.strip() for line in lines for word in line.split(",")]


async def _accept_channels(request: web.Request) -> tuple[web.WebSocketResponse, Channels]:
    """Answer a WebSocket handshake with the best subprotocol both know."""
    chosen = negotiate(_offered(request))
    if chosen is None:
        raise status.bad_request(
            f"unable to upgrade: none of the subprotocols is known: {', '.join(_offered(request))}"
        )
    socket = web.WebSocketResponse(protocols=(chosen,) if chosen else (), compress=False)
    await socket.prepare(request)
    return socket, Channels(chosen)


def _stream_protocol(request: web.Request, served: tuple[str, ...]) -> str:
    lines = request.headers.getall(_STREAM_PROTOCOL, ())
    offered = [word.strip() for line in lines for word in line.split(",") if word.strip()]
    if not offered:
        return served[-1]
    chosen = next((name for name in served if name in offered), None)
    if chosen is None:
        raise status.bad_request(
            f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts {list(served)}"
        )
    return chosen


def _switch_to_spdy(request: web.Request, served: tuple[str, ...]) -> RawStream:
    if request.headers.get("Upgrade", "").lower() != "spdy/3.1":
        raise status.bad_request("Upgrade request required")
    chosen = _stream_protocol(request, served)
    return switch(request, {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", _STREAM_PROTOCOL: chosen})


async def _send_log(response: web.StreamResponse, chunks: AsyncIterator[bytes], limit: int | None) -> None:
    left = limit
    try:
        async for chunk in chunks:
            await response.write(chunk if left is None else chunk[:left])
            if left is not None:
                left -= len(chunk)
                if left <= 0:
                    return
    except KestrelError as error:  # the head is out: what is left to say goes where people look
        await response.write(f"{error.message}\n".encode())


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
