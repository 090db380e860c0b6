"""Blobs on their way in (distribution-spec, "Pushing blobs"): whole, in chunks, or streamed.

The session is a named upload of the content store and nothing else: its bytes are the state, so it survives a restart
without a table. Its id is random, carries a fingerprint of the repository (so that it cannot be used in another) and
the digest algorithm (so that the hash runs while the bytes come).

Bytes are collected to a mebibyte and written and hashed by a thread while the next mebibyte arrives. When a client
breaks off, what came stays: it can ask how far it got, and go on.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Awaitable
from functools import partial
from typing import Final

from aiohttp import web

from kestrel.base.errors import Conflict, DataLoss, InvalidArgument, KestrelError, NotFound
from kestrel.content import Store, Upload
from kestrel.http.server import chunks
from kestrel.oci.digest import DEFAULT_ALGORITHM, Digest, Hasher
from kestrel.registry.access.model import PULL, Principal
from kestrel.registry.errors import API_VERSION, Refusal
from kestrel.registry.repositories import Repositories

_BATCH = 1 << 20
_ID = re.compile(r"[0-9a-f]{32}-([0-9a-f]{16})-(sha256|sha512)")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d+)-(\d+)(?:/(?:\d+|\*))?")
_NO_BODY: Final = frozenset({None, 0})


class Uploads:
    """The upload endpoints of the door."""

    def __init__(self, repositories: Repositories, content: Store, *, idle_seconds: float) -> None:
        self._repositories = repositories
        self._content = content
        self._idle = idle_seconds

    async def begin(self, request: web.BaseRequest, name: str, who: Principal) -> web.StreamResponse:
        """POST: mount a blob, take a whole one, or open a session."""
        query = request.query
        if mount := query.get("mount", ""):
            digest = parse_digest(mount)
            may_read = partial(who.may, PULL)
            if await asyncio.to_thread(self._repositories.mount, name, digest, query.get("from"), may_read):
                return _created(name, digest)
        algorithm = _algorithm(query.get("digest-algorithm", DEFAULT_ALGORITHM))
        wanted = parse_digest(query["digest"]) if "digest" in query and not mount else None
        upload_id = new_id(name, wanted.algorithm if wanted else algorithm)
        if wanted is None:
            self._open(upload_id, create=True).close()
            return _session(name, upload_id, 0, 202)
        upload = self._open(upload_id, create=True)
        try:
            await self._receive(request, upload)
            return await self._finish(name, upload, wanted)
        finally:
            upload.abort()  # nobody knows its id

    async def status(self, name: str, upload_id: str) -> web.StreamResponse:
        """GET: how far the session came."""
        self._check(name, upload_id)
        with self._open(upload_id) as upload:
            return _session(name, upload_id, upload.offset, 204)

    async def append(self, request: web.BaseRequest, name: str, upload_id: str) -> web.StreamResponse:
        """PATCH: the next chunk, or with no Content-Range everything that comes."""
        self._check(name, upload_id)
        with self._open(upload_id) as upload:
            self._in_order(request, upload)
            await self._receive(request, upload)
            return _session(name, upload_id, upload.offset, 202)

    async def finish(self, request: web.BaseRequest, name: str, upload_id: str) -> web.StreamResponse:
        """PUT: perhaps the last chunk, then the digest decides."""
        self._check(name, upload_id)
        digest = parse_digest(request.query.get("digest", ""))
        with self._open(upload_id) as upload:
            if request.content_length not in _NO_BODY or request.headers.get("Transfer-Encoding"):
                self._in_order(request, upload)
                await self._receive(request, upload)
            return await self._finish(name, upload, digest)

    async def cancel(self, name: str, upload_id: str) -> web.StreamResponse:
        """DELETE: throw the session away."""
        self._check(name, upload_id)
        self._open(upload_id).abort()
        return web.Response(status=204, headers=API_VERSION)

    async def _finish(self, name: str, upload: Upload, digest: Digest) -> web.StreamResponse:
        def commit() -> None:
            with self._content.lease():
                upload.commit(digest)
                self._repositories.add_blob(name, digest)

        try:
            await _whole(asyncio.to_thread(commit))
        except DataLoss as error:
            upload.abort()
            raise Refusal("DIGEST_INVALID", error.message, detail={"digest": digest}) from error
        return _created(name, digest)

    async def _receive(self, request: web.BaseRequest, upload: Upload) -> None:
        """Write the body as it comes; one batch is written while the next is collected."""
        writing: asyncio.Task[None] | None = None
        batch: list[bytes] = []
        size = 0
        try:
            async for piece in chunks(request, idle_seconds=self._idle):
                batch.append(piece)
                size += len(piece)
                if size >= _BATCH:
                    if writing:
                        await writing
                    writing = asyncio.create_task(asyncio.to_thread(_write, upload, batch))
                    batch, size = [], 0
        finally:
            if writing:
                await _whole(writing)
            if batch:
                await _whole(asyncio.to_thread(_write, upload, batch))

    def _open(self, upload_id: str, *, create: bool = False) -> Upload:
        algorithm = upload_id.rpartition("-")[2]
        try:
            return self._content.upload(upload_id, algorithm=algorithm, create=create)
        except NotFound as error:
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "no such upload; it was finished, cancelled or expired") from error
        except Conflict as error:
            raise Refusal("BLOB_UPLOAD_INVALID", error.message, status=409) from error

    def _check(self, name: str, upload_id: str) -> None:
        match = _ID.fullmatch(upload_id)
        if match is None or match[1] != _fingerprint(name):
            raise Refusal("BLOB_UPLOAD_UNKNOWN", f"{name} has no upload {upload_id[:80]!r}")

    def _in_order(self, request: web.BaseRequest, upload: Upload) -> None:
        """Refuse a chunk that does not continue where the upload ends; the session stays as it is (416)."""
        text = request.headers.get("Content-Range", "")
        if not text:
            return
        match = _CONTENT_RANGE.fullmatch(text.strip())
        if match is None:
            raise Refusal("BLOB_UPLOAD_INVALID", f"cannot read the Content-Range {text[:60]!r}", status=416)
        first, last = int(match[1]), int(match[2])
        if first != upload.offset:
            raise Refusal(
                "BLOB_UPLOAD_INVALID",
                f"the chunk begins at {first}, the upload has {upload.offset} bytes",
                status=416,
                headers={"Range": _range(upload.offset)},
            )
        if request.content_length is not None and request.content_length != last - first + 1:
            raise Refusal(
                "SIZE_INVALID", f"Content-Range names {last - first + 1} bytes, Content-Length {request.content_length}"
            )


def new_id(name: str, algorithm: str) -> str:
    """Return a fresh session id for a repository."""
    return f"{os.urandom(16).hex()}-{_fingerprint(name)}-{algorithm}"


def parse_digest(text: str) -> Digest:
    """Return the digest, or refuse it."""
    try:
        return Digest.parse(text)
    except InvalidArgument as error:
        raise Refusal("DIGEST_INVALID", error.message, detail={"hint": error.hint}) from error


def _algorithm(name: str) -> str:
    try:
        return Hasher(name).algorithm
    except KestrelError as error:
        raise Refusal("DIGEST_INVALID", error.message) from error


def _fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _write(upload: Upload, batch: list[bytes]) -> None:
    for piece in batch:
        upload.write(piece)


async def _whole(work: "Awaitable[None]") -> None:
    """Let a thread finish with its file before anybody closes it, even when the request is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        raise


def _session(name: str, upload_id: str, offset: int, status: int) -> web.Response:
    headers = {
        **API_VERSION,
        "Location": f"/v2/{name}/blobs/uploads/{upload_id}",
        "Range": _range(offset),
        "Docker-Upload-UUID": upload_id,
    }
    return web.Response(status=status, headers=headers)


def _range(offset: int) -> str:
    return f"0-{max(offset - 1, 0)}"


def _created(name: str, digest: Digest) -> web.Response:
    headers = {**API_VERSION, "Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)
