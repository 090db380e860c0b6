"""Routes of the control socket. Who may connect is the file system's business: the socket is root's alone."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec
from aiohttp import web

from kestrel.base import disk
from kestrel.base.errors import Internal, InvalidArgument, KestrelError, NotFound
from kestrel.control import answers, builds, containers, explain, images, platform, registry, transfers
from kestrel.control.requests import Request
from kestrel.control.services import Services, Verbs
from kestrel.control.streams import Frames
from kestrel.http.upgrade import Switched, switch

VERBS: Verbs = {**containers.VERBS, **explain.VERBS, **images.VERBS, **builds.VERBS, **platform.VERBS, **registry.VERBS}
STREAMS: "dict[str, tuple[type[Request], Any]]" = {**containers.STREAMS, **builds.STREAMS, **transfers.STREAMS}
_LOOK = 0.3  # seconds between looks whether a client is still there
BODY_LIMIT = 4 * 1024 * 1024


def application(services: Services) -> web.Application:
    """Return the door as an aiohttp application for `http.server`."""
    app = web.Application(client_max_size=BODY_LIMIT)

    async def handle(request: web.Request) -> web.StreamResponse:
        name = request.match_info["verb"]
        if request.headers.get("Upgrade") == "kestrel":
            return await _stream(services, name, request)
        return await _lines(services, name, request)

    app.router.add_post("/v1/{verb}", handle)
    return app


async def _lines(services: Services, name: str, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)

    async def line(message: dict[str, Any]) -> None:
        await response.write(answers.encode(message) + b"\n")

    async def emit(event: dict[str, Any]) -> None:
        await line({"event": event})

    try:
        if name not in VERBS:
            raise NotFound(f"unknown verb {name!r}", hint="the command and the daemon are of different versions")
        kind, verb = VERBS[name]
        work = verb(services, _decode(await request.read(), kind), emit)
        await line({"result": await (_while_heard(request, work) if name in builds.ENDED_WITH_CLIENT else work)})
    except ConnectionResetError:
        pass  # nobody is left to hear it
    except KestrelError as error:
        await line({"error": to_json(error)})
    except Exception as error:
        full = disk.refusal(error)
        await line({"error": to_json(full or _bug(error))})
        if full is None:
            services.log.exception("verb %s failed", name)
            raise
    return response


async def _while_heard(request: web.Request, work: Awaitable[Any]) -> Any:
    """Do what nobody wants any more once its client is gone: it is cancelled then, and has cleaned up when this ends.

    aiohttp tells a handler of that only by cancelling it, and only if it does so to all of them: hence the looking.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=_LOOK))[0]:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError
        return task.result()
    finally:
        if task.cancel():
            await asyncio.wait([task])


async def _stream(services: Services, name: str, request: web.Request) -> web.StreamResponse:
    body = await request.read()
    if name not in STREAMS:
        return web.json_response({"error": to_json(NotFound(f"unknown stream {name!r}"))}, status=404)
    kind, verb = STREAMS[name]
    try:
        wanted = _decode(body, kind)
    except KestrelError as error:
        return web.json_response({"error": to_json(error)}, status=400)
    frames = Frames(switch(request, {"Connection": "Upgrade", "Upgrade": "kestrel"}))
    try:
        await verb(services, wanted, frames)
    except ConnectionResetError:
        pass  # the client is gone; whatever it started goes on
    except KestrelError as error:
        await _last_word(frames, error)
    except Exception as error:
        full = disk.refusal(error)
        if full is None:
            services.log.exception("stream %s failed", name)
        elif name == "run":
            full.context["stage"] = "run"
        await _last_word(frames, full or _bug(error))
    finally:
        frames.close()
    return Switched()


async def _last_word(frames: Frames, error: KestrelError) -> None:
    try:
        await frames.say({"error": to_json(error)})
    except ConnectionResetError:
        pass  # nobody is left to hear it


def _decode(body: bytes, kind: type[Request]) -> Request:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"malformed request: {error}") from error


def _bug(error: Exception) -> Internal:
    return Internal(f"{type(error).__name__}: {error}", hint="this is a bug; the daemon's log has the details")


def to_json(error: KestrelError) -> dict[str, Any]:
    """Say an error so that the command can raise it again; only text of its context travels."""
    context = {key: value for key, value in error.context.items() if isinstance(value, str | int)}
    return {"kind": error.kind, "message": error.message, "hint": error.hint, "context": context}
