"""Watches over HTTP: lines of JSON until the client goes, the time is over, or it fell too far behind.

Nothing is written while nothing happens, so the end of the connection is noticed as such and not by a write.
A client that takes no bytes for a while is dropped; what it missed it can ask for again by resourceVersion.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from aiohttp import web

from kestrel.base.errors import KestrelError
from kestrel.http.upgrade import while_connected
from kestrel.kube.api import status
from kestrel.kube.apiserver.printing import Form, Printer
from kestrel.kube.apiserver.requests import Route
from kestrel.kube.apiserver.selection import Seen
from kestrel.kube.apiserver.verbs import Verbs
from kestrel.kube.client import ListOptions
from kestrel.kube.store.store import encode

STALLED_SECONDS = 60.0
"""How long a client may leave our bytes untaken."""
MIN_SECONDS = 1800
"""A watch without a timeout ends after this to twice this many seconds, as kube-apiserver's does."""


async def stream(
    request: web.Request, verbs: Verbs, printer: Printer, route: Route, form: Form, options: ListOptions
) -> web.StreamResponse:
    """Answer a watch. What is wrong with the request is raised before anything is written."""
    if not options.timeout_seconds:
        options = replace(options, timeout_seconds=MIN_SECONDS + secrets.randbelow(MIN_SECONDS))
    batches = verbs.watch(route.resource, route.namespace, route.name, options)
    async with aclosing(batches):
        first = await anext(batches)
        response = web.StreamResponse(headers={"Content-Type": form.content_type, "Cache-Control": "no-cache, private"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        work = _write(response, verbs, printer, route, form, first, batches)
        with suppress(ConnectionError, TimeoutError):
            if await while_connected(request, work):
                await response.write_eof()
    return response


async def _write(
    response: web.StreamResponse,
    verbs: Verbs,
    printer: Printer,
    route: Route,
    form: Form,
    first: list[Seen],
    batches: AsyncGenerator[list[Seen], None],
) -> None:
    headers = True
    try:
        if first:
            await _send(response, printer, route, form, first, verbs, headers=True)
            headers = False
        async for batch in batches:
            await _send(response, printer, route, form, batch, verbs, headers=headers)
            headers = False
    except KestrelError as error:
        line = encode({"type": "ERROR", "object": status.failure(error)}) + b"\n"
        await asyncio.wait_for(response.write(line), STALLED_SECONDS)


async def _send(
    response: web.StreamResponse,
    printer: Printer,
    route: Route,
    form: Form,
    batch: list[Seen],
    verbs: Verbs,
    *,
    headers: bool,
) -> None:
    now = verbs.clock.now()
    for start in range(0, len(batch), 256):
        part = batch[start : start + 256]
        lines = [
            printer.event(route.resource, s, form, now, first=headers and start + i == 0) for i, s in enumerate(part)
        ]
        await asyncio.wait_for(response.write(b"".join(lines)), STALLED_SECONDS)
