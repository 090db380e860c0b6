"""Blobs and manifests on their way out (distribution-spec, "Pushing blobs" and "Pushing manifests").

A blob that is there already is not sent; one that another repository of the same registry has is mounted; else an
upload is begun and its Location followed, anew after each answer, because registries put one-time secrets into it.
One PUT carries everything unless the registry finds that too much, or chunks are asked for: then PATCHes with
Content-Range, each no smaller than OCI-Chunk-Min-Length. After a broken connection an upload of chunks asks how far
it came and goes on from there; a single PUT begins again with a new upload.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import BinaryIO

from yarl import URL

from kestrel.base.errors import DataLoss, InvalidArgument, KestrelError, NotFound, ResourceExhausted, Unavailable
from kestrel.distribution.transport import Call, Transport
from kestrel.http.client import CLIENT_ERRORS
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.reference import Reference

_PIECE = 1 << 20
_FALLBACK_CHUNK = 16 << 20
_RANGE = re.compile(r"(?:bytes[= ])?0-(\d+)")
Sent = Callable[[int], None]
"""Told how many bytes of a blob have left so far; after a new beginning the number goes back."""


def _silent(_: int) -> None:
    return


async def push_blob(
    transport: Transport,
    ref: Reference,
    descriptor: Descriptor,
    open: Callable[[], BinaryIO],  # noqa: A002 - what it does
    *,
    mount_from: "Reference | None" = None,
    sent: Sent = _silent,
) -> bool:
    """Make a repository have a blob; returns whether bytes had to be sent.

    `open` gives the content from its beginning, each time it is called. `mount_from` names a repository on the same
    registry that has the blob.
    """
    if await has_blob(transport, ref, descriptor.digest):
        return False
    chunked = transport.settings.chunk > 0
    for attempt in range(1, transport.settings.attempts + 1):
        try:
            location, least = await _begin(transport, ref, descriptor.digest, mount_from)
            if location is None:
                return False
            if chunked:
                await _in_chunks(transport, ref, descriptor, open, location, least, sent)
            else:
                await _in_one(transport, ref, descriptor, open, location, sent)
        except ResourceExhausted as error:
            if chunked or error.context.get("status") != 413:
                raise
            chunked = True  # a proxy in between limits the size of one request
        except Unavailable as error:
            if attempt == transport.settings.attempts or not _worth_another(error):
                raise
            await transport.pause(attempt)
        else:
            return True
    raise Unavailable(f"{ref.domain} did not take blob {descriptor.digest}")


async def has_blob(transport: Transport, ref: Reference, digest: Digest) -> bool:
    """Whether the repository has the blob."""
    call = _call("HEAD", ref, f"{ref.path}/blobs/{digest}", f"blob {digest}", good=(200, 404))
    async with transport.send(call) as answer:
        return answer.status == 200


async def push_manifest(transport: Transport, ref: Reference, media_type: str, data: bytes) -> Descriptor:
    """Store a manifest under the tag, or the digest, of `ref`. What it names must be there already."""
    digest = Digest.of(data, ref.digest.algorithm if ref.digest else "sha256")
    if ref.digest and ref.digest != digest:
        raise InvalidArgument(f"the manifest has digest {digest}, not {ref.digest}")
    call = _call(
        "PUT",
        ref,
        f"{ref.path}/manifests/{ref.version}",
        f"image {ref.familiar()}",
        good=(200, 201, 202),
        headers={"Content-Type": media_type},
        body=lambda: data,
        size=len(data),
    )
    async with transport.send(call) as answer:
        said = answer.headers.get("Docker-Content-Digest", "")
    if said.startswith(f"{digest.algorithm}:") and said != digest:
        raise DataLoss(f"{ref.domain} stored {said[:80]} when {digest} was pushed")
    return Descriptor(media_type=media_type, digest=digest, size=len(data))


async def _begin(
    transport: Transport, ref: Reference, digest: Digest, mount_from: "Reference | None"
) -> tuple["str | None", int]:
    """Mount the blob (then the Location is None), or open an upload; returns its Location and smallest chunk."""
    mount = mount_from is not None and mount_from.domain == ref.domain and mount_from.path != ref.path
    if mount and mount_from is not None:
        query = f"?mount={digest}&from={mount_from.path}"
        scopes = [*_scopes(ref), f"repository:{mount_from.path}:pull"]
        try:
            return await _post(transport, ref, query, scopes)
        except KestrelError as error:
            if not isinstance(error, NotFound | InvalidArgument):
                raise
    return await _post(transport, ref, "", _scopes(ref))


async def _post(transport: Transport, ref: Reference, query: str, scopes: Collection[str]) -> tuple["str | None", int]:
    call = _call(
        "POST",
        ref,
        f"{ref.path}/blobs/uploads/{query}",
        f"repository {ref.familiar_name}",
        good=(201, 202),
        scopes=scopes,
    )
    async with transport.send(call) as answer:
        if answer.status == 201:
            return None, 0
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        return _location(answer.url, answer.headers, ref), int(least) if least.isdigit() else 0


async def _in_one(
    transport: Transport,
    ref: Reference,
    descriptor: Descriptor,
    open: Callable[[], BinaryIO],  # noqa: A002
    location: str,
    sent: Sent,
) -> None:
    call = _call(
        "PUT",
        ref,
        _with_digest(location, descriptor.digest),
        f"blob {descriptor.digest}",
        good=(201, 204),
        headers={"Content-Type": "application/octet-stream"},
        body=lambda: _stream(open, 0, descriptor.size, sent),
        size=descriptor.size,
        repeatable=False,  # the upload may be spent: a new attempt begins with a new one
    )
    async with transport.send(call):
        pass


async def _in_chunks(
    transport: Transport,
    ref: Reference,
    descriptor: Descriptor,
    open: Callable[[], BinaryIO],  # noqa: A002
    location: str,
    least: int,
    sent: Sent,
) -> None:
    chunk = max(transport.settings.chunk or _FALLBACK_CHUNK, least)
    position, failures = 0, 0
    while position < descriptor.size:
        try:
            location, reached = await _patch(transport, ref, descriptor, open, location, position, chunk, sent)
        except Unavailable as error:
            failures += 1
            if failures >= transport.settings.attempts or not _worth_another(error):
                raise
            await transport.pause(failures)
            location, reached = await _status(transport, ref, descriptor, location)
        if reached > position:
            failures = 0
        position = reached
    call = _call("PUT", ref, _with_digest(location, descriptor.digest), f"blob {descriptor.digest}", good=(201, 204))
    async with transport.send(call):
        pass


async def _patch(
    transport: Transport,
    ref: Reference,
    descriptor: Descriptor,
    open: Callable[[], BinaryIO],  # noqa: A002
    location: str,
    position: int,
    chunk: int,
    sent: Sent,
) -> tuple[str, int]:
    end = min(position + chunk, descriptor.size)
    call = _call(
        "PATCH",
        ref,
        location,
        f"blob {descriptor.digest}",
        good=(202, 204),
        headers={"Content-Type": "application/octet-stream", "Content-Range": f"{position}-{end - 1}"},
        body=lambda: _stream(open, position, end, sent),
        size=end - position,
        repeatable=False,
    )
    async with transport.send(call) as answer:
        return _location(answer.url, answer.headers, ref), _reached(answer.headers, end)


async def _status(transport: Transport, ref: Reference, descriptor: Descriptor, location: str) -> tuple[str, int]:
    call = _call("GET", ref, location, f"the upload of {descriptor.digest}", good=(204,))
    async with transport.send(call) as answer:
        following = _location(answer.url, answer.headers, ref) if "Location" in answer.headers else location
        return following, _reached(answer.headers, 0)


async def _stream(
    open: Callable[[], BinaryIO],  # noqa: A002
    start: int,
    end: int,
    sent: Sent,
) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(open)
    try:
        file.seek(start)
        while start < end:
            piece = await asyncio.to_thread(file.read, min(_PIECE, end - start))
            if not piece:
                raise DataLoss(f"the blob to push ends after {start} bytes, announced were {end}")
            yield piece
            start += len(piece)
            sent(start)
    finally:
        file.close()


def _call(
    method: str,
    ref: Reference,
    path: str,
    what: str,
    *,
    good: Collection[int],
    scopes: "Collection[str] | None" = None,
    headers: "Mapping[str, str] | None" = None,
    body: "Callable[[], AsyncIterator[bytes] | bytes] | None" = None,
    size: int = 0,
    repeatable: bool = True,
) -> Call:
    return Call(
        method=method,
        domain=ref.domain,
        repository=ref.path,
        path=path,
        what=what,
        scopes=_scopes(ref) if scopes is None else scopes,
        headers=headers or {},
        body=body,
        size=size,
        good=good,
        repeatable=repeatable,
    )


def _scopes(ref: Reference) -> list[str]:
    return [f"repository:{ref.path}:pull,push"]


def _location(asked: URL, headers: Mapping[str, str], ref: Reference) -> str:
    location = headers.get("Location")
    if not location:
        raise Unavailable(f"{ref.domain} opened an upload but did not say where (no Location header)")
    return str(asked.join(URL(location, encoded=True)))


def _with_digest(location: str, digest: Digest) -> str:
    """Add the digest to whatever query the Location has, without touching its escapes."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest.replace(':', '%3A')}"


def _reached(headers: Mapping[str, str], otherwise: int) -> int:
    """Return how many bytes the upload has. `0-0` stands for nothing in some registries: then trust our own count."""
    match = _RANGE.fullmatch(headers.get("Range", ""))
    if match is None or int(match[1]) == 0:
        return otherwise
    return int(match[1]) + 1


def _worth_another(error: KestrelError) -> bool:
    return isinstance(error.__cause__, CLIENT_ERRORS) or error.context.get("status") in (500, 502, 503, 504)
