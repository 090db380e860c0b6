"""Answers as aiohttp responses: bytes that are ready, with compression where it pays."""

from __future__ import annotations

import asyncio

from aiohttp import web
from isal import igzip
from multidict import CIMultiDict

from kestrel.kube.api import status
from kestrel.kube.api.scheme import JSONObject
from kestrel.kube.apiserver.printing import OBJECT, Form, to_yaml
from kestrel.kube.store.store import encode

JSON = "application/json"
GZIP_FROM = 128 * 1024
"""Answers of this many bytes are compressed for clients that accept it, as kube-apiserver does."""


async def encoded(request: web.Request, body: bytes, content_type: str, code: int = 200) -> web.Response:
    """Return a response with a body that is ready."""
    headers = CIMultiDict({"Content-Type": content_type, "Cache-Control": "no-cache, private"})
    if len(body) >= GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = await asyncio.to_thread(igzip.compress, body, 0)
        headers["Content-Encoding"] = "gzip"
        headers["Vary"] = "Accept-Encoding"
    return web.Response(body=body, status=code, headers=headers)


def json(body: JSONObject, code: int = 200, content_type: str = JSON) -> web.Response:
    """Return an object as JSON."""
    return web.Response(body=encode(body), status=code, headers={"Content-Type": content_type})


def plain(body: JSONObject, form: Form, code: int = 200) -> web.Response:
    """Return an object that is no stored one, in the form asked for."""
    response = json(body, code)
    if form.kind == OBJECT and form.yaml:
        return web.Response(body=to_yaml(response.body), status=code, headers={"Content-Type": form.content_type})  # type: ignore[arg-type] # always bytes
    return response


def found(body: bytes | None) -> web.Response:
    """Return a JSON document, or 404 when there is none."""
    if body is None:
        raise status.no_such_path()
    return web.Response(body=body, headers={"Content-Type": JSON})
