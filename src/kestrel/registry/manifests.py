"""Manifests: stored byte for byte, served as they were pushed (distribution-spec, "Pushing manifests").

What is refused: a document that is not of the type it is sent as, or of two types at once (CVE-2021-41190); one whose
digest is another; one that names blobs this repository does not have.
"""

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import web

from kestrel.base.errors import DataLoss, InvalidArgument, NotFound
from kestrel.http.server import body
from kestrel.oci import media_types
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import LIMIT, Index, Manifest, decode
from kestrel.oci.reference import is_tag
from kestrel.registry import whole
from kestrel.registry.cache import ManifestCache, Ready
from kestrel.registry.conditions import Condition, matches
from kestrel.registry.errors import API_VERSION, Refusal
from kestrel.registry.repositories import MissingChildren, Repositories, Stored
from kestrel.registry.through import Cached, PullThrough
from kestrel.registry.uploads import parse_digest

_MOST_TAGS = 64
"""The spec wants ten at least; each is named in a header of the answer, and clients give up at about a hundred."""


class Manifests:
    """The manifest endpoints of the door."""

    def __init__(
        self, repositories: Repositories, cache: ManifestCache, through: PullThrough, *, idle_seconds: float
    ) -> None:
        self._repositories = repositories
        self._through = through
        self._cache = cache
        self._idle = idle_seconds
        repositories.on_change(cache.drop)

    def ready(self, request: web.BaseRequest) -> "Ready | None":
        """Return what answers a GET or HEAD when it is in memory: the hot path, nothing is awaited or parsed."""
        return self._cache.get(request.raw_path)

    def answer(self, request: web.BaseRequest, ready: Ready) -> web.StreamResponse:
        """Return the answer, which is short when the client has it already."""
        condition = request.headers.get("If-None-Match")
        if condition is not None and matches(condition, ready.etag):
            return web.Response(status=304, headers=ready.headers)
        if ready.head and whole.suits(request):
            body = ready.data if request.method == "GET" else b""
            return whole.Whole(ready.head + whole.date() + body)
        return web.Response(body=ready.data, headers=ready.headers)

    async def get(self, request: web.BaseRequest, name: str, version: str) -> web.StreamResponse:
        """GET and HEAD by tag or digest."""
        generation = self._cache.generation
        _check_version(version)
        stored = await asyncio.to_thread(self._repositories.manifest, name, version)
        if stored is None:
            raise Refusal("MANIFEST_UNKNOWN", f"{name} has no manifest {version}", detail={"name": name})
        ready = _ready(name, stored)
        self._cache.put(request.raw_path, ready, generation)
        return self.answer(request, ready)

    async def get_cached(self, request: web.BaseRequest, cached: Cached, version: str) -> web.StreamResponse:
        """GET and HEAD of a repository that is a cache; only what cannot change is remembered in memory."""
        generation = self._cache.generation
        _check_version(version)
        try:
            stored = await self._through.manifest(cached, version)
        except NotFound as error:
            raise Refusal("MANIFEST_UNKNOWN", error.message, detail={"name": cached.name}) from error
        ready = _ready(cached.name, stored)
        if ":" in version and "?" not in request.raw_path and request.path.startswith(f"/v2/{cached.name}/"):
            self._cache.put(request.raw_path, ready, generation)
        return self.answer(request, ready)

    async def put(self, request: web.BaseRequest, name: str, version: str, actor: str) -> web.StreamResponse:
        """PUT under a tag, or under a digest with any number of `tag=` parameters; If-Match and If-None-Match hold."""
        tags = _tags(version, request)
        data = await body(request, LIMIT, idle_seconds=self._idle)
        if data is None:
            raise Refusal("SIZE_INVALID", f"a manifest has at most {LIMIT} bytes", status=413)
        digest = Digest.of(data)
        if ":" in version:
            wanted = parse_digest(version)
            digest = Digest.of(data, wanted.algorithm)
            if digest != wanted:
                raise Refusal("DIGEST_INVALID", f"the manifest has digest {digest}", detail={"digest": wanted})
        content_type, condition = request.headers.get("Content-Type", ""), Condition.of(request.headers)
        document = await self._store(name, digest, content_type, data, tags, condition, actor)
        answer = web.Response(status=201, headers={**API_VERSION, "Docker-Content-Digest": digest})
        answer.headers["Location"] = f"/v2/{name}/manifests/{digest}"
        if document.subject is not None:
            answer.headers["OCI-Subject"] = document.subject.digest
        if ":" in version:
            for tag in tags:
                answer.headers.add("OCI-Tag", tag)
        return answer

    async def _store(
        self,
        name: str,
        digest: Digest,
        content_type: str,
        data: bytes,
        tags: Sequence[str],
        condition: Condition,
        actor: str,
    ) -> "Manifest | Index":
        try:
            media_type = _media_type(content_type, data)
            return await asyncio.to_thread(
                self._repositories.put_manifest,
                name,
                digest,
                media_type,
                data,
                tags,
                condition=condition,
                actor=actor,
            )
        except InvalidArgument as error:
            detail = {"hint": error.hint} if error.hint else None
            raise Refusal("MANIFEST_INVALID", error.message, detail=detail) from error
        except DataLoss as error:
            raise Refusal("DIGEST_INVALID", error.message) from error
        except MissingChildren as error:
            raise Refusal(
                "MANIFEST_BLOB_UNKNOWN", error.message, detail=[{"digest": child} for child in error.digests[:100]]
            ) from error

    async def delete(self, request: web.BaseRequest, name: str, version: str, actor: str) -> web.StreamResponse:
        """DELETE: by tag the tag alone, by digest the manifest and every tag on it."""
        _check_version(version)
        remove: Callable[..., bool] = self._repositories.delete_tag
        if ":" in version:
            version, remove = parse_digest(version), self._repositories.delete_manifest
        condition = Condition.of(request.headers)
        if not await asyncio.to_thread(remove, name, version, condition=condition, actor=actor):
            raise Refusal("MANIFEST_UNKNOWN", f"{name} has no manifest {version}", detail={"name": name})
        return web.Response(status=202, headers=API_VERSION)


def _ready(name: str, stored: Stored) -> Ready:
    digest = stored.descriptor.digest
    headers = {
        **API_VERSION,
        "Content-Type": stored.descriptor.media_type,
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
    }
    head = whole.head(headers, len(stored.data))
    return Ready(name, digest, stored.descriptor.media_type, stored.data, headers, f'"{digest}"', head)


def _check_version(version: str) -> None:
    if ":" in version:
        parse_digest(version)
    elif not is_tag(version):
        raise Refusal("MANIFEST_INVALID", f"invalid tag {version[:140]!r}")


def _tags(version: str, request: web.BaseRequest) -> list[str]:
    """Return the tags to set; raises Refusal when one of them cannot be a tag."""
    if ":" not in version:
        _check_version(version)
        return [version]
    tags = list(dict.fromkeys(request.query.getall("tag", [])))
    if len(tags) > _MOST_TAGS:
        raise Refusal("MANIFEST_INVALID", f"at most {_MOST_TAGS} tags can be set at once", status=414)
    for tag in tags:
        if not is_tag(tag):
            raise Refusal("MANIFEST_INVALID", f"invalid tag {tag[:140]!r}")
    return tags


def _media_type(content_type: str, data: bytes) -> str:
    """Return the type the manifest was sent as; when nobody said, what it calls itself."""
    sent = media_types.essence(content_type)
    if sent and sent != "application/octet-stream":  # what a client library puts in when nobody chose one
        return sent
    document = decode(data)
    return document.media_type or (media_types.OCI_INDEX if isinstance(document, Index) else media_types.OCI_MANIFEST)
