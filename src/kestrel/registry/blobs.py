"""Reading and removing blobs (distribution-spec, "Pulling blobs").

Large answers leave by sendfile, so the bytes never enter this process; small ones, and those over TLS, are read. A
blob never changes, so its digest is its ETag and a client may keep it for ever.
"""

import asyncio
import logging
import os
import re
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from kestrel.base.errors import KestrelError, NotFound
from kestrel.content import Store
from kestrel.oci.digest import Digest
from kestrel.registry.conditions import matches
from kestrel.registry.errors import API_VERSION, Refusal
from kestrel.registry.repositories import Repositories
from kestrel.registry.through import Cached, Flight, PullThrough

_log = logging.getLogger(__name__)
_SMALL = 64 * 1024
_PIECE = 256 * 1024
_RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*")
_FOREVER: Final = "max-age=31536000, immutable"


class FileSlice(web.StreamResponse):
    """Sends `count` bytes of a file from `start`. The headers are the caller's; nothing is guessed or added."""

    def __init__(self, path: Path, start: int, count: int, *, status: int, headers: dict[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self._path = path
        self._offset = start
        self._length = count

    async def prepare(self, request: web.BaseRequest) -> "AbstractStreamWriter | None":
        """Send head and body; raises FileNotFoundError before anything is sent when the file has gone."""
        if self.prepared:
            return await super().prepare(request)
        self.content_length = self._length
        if request.method == "HEAD" or not self._length:
            return await super().prepare(request)
        file = self._path.open("rb", buffering=0)
        try:
            writer = await super().prepare(request)
            transport = request.transport
            if transport is None:
                raise ConnectionResetError("the client has gone")
            loop = asyncio.get_running_loop()
            if transport.get_extra_info("sslcontext") is None:
                await loop.sendfile(transport, file, self._offset, self._length, fallback=False)
            else:
                assert writer is not None
                await self._copy(writer, file.fileno())
        finally:
            file.close()
        await super().write_eof()
        return writer

    async def _copy(self, writer: AbstractStreamWriter, fd: int) -> None:
        """Under TLS the bytes have to pass through here; asyncio's own fallback takes pieces of 16 KiB."""
        position, end = self._offset, self._offset + self._length
        while position < end:
            data = await asyncio.to_thread(os.pread, fd, min(_PIECE, end - position), position)
            if not data:
                raise ConnectionResetError("the file is shorter than it was")
            await writer.write(data)
            position += len(data)


class Blobs:
    """The blob endpoints of the door."""

    def __init__(self, repositories: Repositories, content: Store, through: PullThrough) -> None:
        self._repositories = repositories
        self._content = content
        self._through = through

    async def get(
        self, request: web.BaseRequest, name: str, digest: Digest, cached: "Cached | None" = None
    ) -> web.StreamResponse:
        """GET and HEAD of a blob, or of one range of it; of a cached repository perhaps while it still comes in."""
        size, flight = await asyncio.to_thread(self._repositories.has_blob, name, digest), None
        if size is None and cached is not None:
            size, flight = await self._from_upstream(request, cached, digest)
        if size is None:
            raise Refusal("BLOB_UNKNOWN", f"{name} has no blob {digest}", detail={"digest": digest})
        etag = f'"{digest}"'
        headers = {
            **API_VERSION,
            "Docker-Content-Digest": digest,
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": _FOREVER,
        }
        if matches(request.headers.get("If-None-Match", ""), etag):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = "application/octet-stream"
        wanted = None
        if request.headers.get("If-Range", etag) == etag:
            wanted = byte_range(request.headers.get("Range", ""), size)
        start, count, status = 0, size, 200
        if wanted is not None:
            start, count = wanted
            status = 206
            headers["Content-Range"] = f"bytes {start}-{start + count - 1}/{size}"
        if flight is not None:
            return await _relay(request, flight, start, count, status, headers)
        return await self._send(request, digest, start, count, status, headers)

    async def _from_upstream(
        self, request: web.BaseRequest, cached: Cached, digest: Digest
    ) -> "tuple[int | None, Flight | None]":
        """Return the size of a blob that is not here, and its download; a HEAD begins none."""
        if request.method == "HEAD":
            return await self._through.size(cached, digest), None
        try:
            flight = await self._through.blob(cached, digest)
        except NotFound as error:
            raise Refusal("BLOB_UNKNOWN", error.message, detail={"digest": digest}) from error
        if flight is None:
            return await asyncio.to_thread(self._repositories.has_blob, cached.name, digest), None
        return flight.descriptor.size, flight

    async def _send(
        self, request: web.BaseRequest, digest: Digest, start: int, count: int, status: int, headers: dict[str, str]
    ) -> web.StreamResponse:
        path = self._content.path(digest)
        if count > _SMALL or request.method == "HEAD":  # a HEAD opens nothing
            return FileSlice(path, start, count, status=status, headers=headers)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return web.Response(body=os.pread(fd, count, start), status=status, headers=headers)
        finally:
            os.close(fd)

    async def delete(self, name: str, digest: Digest) -> web.StreamResponse:
        """DELETE: the repository does not show the blob any more; a collection takes the bytes when nobody does."""
        if not await asyncio.to_thread(self._repositories.remove_blob, name, digest):
            raise Refusal("BLOB_UNKNOWN", f"{name} has no blob {digest}", detail={"digest": digest})
        return web.Response(status=202, headers={**API_VERSION, "Docker-Content-Digest": digest})


async def _relay(
    request: web.BaseRequest, flight: Flight, start: int, count: int, status: int, headers: dict[str, str]
) -> web.StreamResponse:
    """Send what comes in as it comes; an upstream that fails before the first byte is a refusal of ours."""
    try:
        await flight.begun(start)
    except NotFound as error:
        raise Refusal("BLOB_UNKNOWN", error.message) from error
    answer = web.StreamResponse(status=status, headers=headers)
    answer.content_length = count
    await answer.prepare(request)
    try:
        async for piece in flight.read(start, count):
            await answer.write(piece)
    except KestrelError as error:
        _log.warning("a blob broke off on its way through: %s", error)
        if request.transport is not None:
            request.transport.abort()  # what was promised cannot be kept, and must not look as if it had been
        return answer
    await answer.write_eof()
    return answer


def byte_range(text: str, size: int) -> "tuple[int, int] | None":
    """Return start and length of the range asked for, None for the whole; raises Refusal (416) for what is not there.

    RFC 9110 section 14: an unknown unit and several ranges at once may be ignored, and are.
    """
    match = _RANGE.fullmatch(text)
    if match is None or match[1] == match[2] == "":
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    if start > end or start >= size:
        raise Refusal(
            "SIZE_INVALID",
            f"the range {text[:60]!r} is not within the {size} bytes of the blob",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end - start + 1
