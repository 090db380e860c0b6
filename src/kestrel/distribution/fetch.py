"""Blobs on their way in: streamed, counted, hashed, and taken up again where a connection broke.

After a break the rest is asked for with Range; a registry that ignores it and starts over has its first part
skipped. A break after progress does not count against the number of attempts, so that a long download over a bad
line ends. The last byte is handed out only after the whole is known to be right, so a caller that has read to the
end has what the digest promises.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from kestrel.base.errors import DataLoss, KestrelError, NotFound, TimedOut, Unavailable
from kestrel.distribution.resolve import pull_scope
from kestrel.distribution.transport import Call, Transport
from kestrel.http.client import CLIENT_ERRORS, explain
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Hasher
from kestrel.oci.reference import Reference

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


async def blob(
    transport: Transport, ref: Reference, descriptor: Descriptor, offset: int = 0, *, verify: bool = True
) -> AsyncIterator[bytes]:
    """Yield the bytes of a blob from `offset` on.

    From offset 0 the digest is verified (unless `verify` is off, for a caller that hashes anyway); from further on
    only the size can be. Raises NotFound, DataLoss for wrong bytes, Unavailable when it cannot be had to the end.
    """
    hasher = Hasher(descriptor.digest.algorithm) if verify and offset == 0 else None
    position, failures = offset, 0
    held = b""
    while position < descriptor.size or (position == 0 == descriptor.size and hasher):
        begun = position
        try:
            async with _open(transport, ref, descriptor, position) as pieces:
                async for piece in pieces:
                    position += len(piece)
                    _not_too_long(ref, descriptor, position)
                    if hasher:
                        hasher.update(piece)
                    if held:
                        yield held
                    held = piece
        except (Unavailable, TimedOut) as error:
            if not isinstance(error.__cause__, CLIENT_ERRORS):
                raise
            failures = failures + 1 if position == begun else 1
            if failures >= transport.settings.attempts:
                raise
            await transport.pause(failures)
            continue
        if position < descriptor.size:
            raise DataLoss(f"{ref.domain} sent {position} of the {descriptor.size} bytes of {descriptor.digest}")
        break
    if hasher and hasher.digest() != descriptor.digest:
        raise DataLoss(
            f"{ref.domain} sent bytes with digest {hasher.digest()} for {descriptor.digest}",
            hint="the registry, or something on the way to it, changes what it serves",
        )
    if held:
        yield held


@asynccontextmanager
async def _open(
    transport: Transport, ref: Reference, descriptor: Descriptor, position: int
) -> AsyncIterator[AsyncIterator[bytes]]:
    headers = {"Range": f"bytes={position}-"} if position else {}
    call = Call(
        method="GET",
        domain=ref.domain,
        repository=ref.path,
        path=f"{ref.path}/blobs/{descriptor.digest}",
        what=f"blob {descriptor.digest} of {ref.familiar_name}",
        scopes=pull_scope(ref.path),
        headers=headers,
        good=(200, 206),
    )
    try:
        async with transport.send(call) as answer:
            yield _pieces(answer, ref, descriptor, position)
    except NotFound as error:
        if not descriptor.urls:
            raise
        async with _elsewhere(transport, descriptor, position, error) as answer:
            yield _pieces(answer, ref, descriptor, position)


@asynccontextmanager
async def _elsewhere(
    transport: Transport, descriptor: Descriptor, position: int, missing: KestrelError
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open a foreign layer where its descriptor says it lies; nobody's credentials go there."""
    for url in descriptor.urls:
        if not url.startswith(("https://", "http://")):
            continue
        try:
            answer = await transport.elsewhere(url, {"Range": f"bytes={position}-"} if position else {})
        except CLIENT_ERRORS as error:
            missing = explain(error, url)
            continue
        async with answer:
            if answer.status in (200, 206):
                try:
                    yield answer
                except CLIENT_ERRORS as error:
                    raise explain(error, url) from error
                return
    raise missing


async def _pieces(
    answer: aiohttp.ClientResponse, ref: Reference, descriptor: Descriptor, position: int
) -> AsyncIterator[bytes]:
    """Yield what continues at `position`, whatever the server made of our Range."""
    start = 0
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) > position:
            raise DataLoss(f"{ref.domain} sent another part of {descriptor.digest} than was asked for")
        start = int(match[1])
    length = answer.content_length
    if length is not None and start + length != descriptor.size:
        raise DataLoss(
            f"{ref.domain} has {start + length} bytes for {descriptor.digest}, announced were {descriptor.size}"
        )
    async for piece in answer.content.iter_any():
        skipped = min(max(position - start, 0), len(piece))
        start += len(piece)
        if skipped < len(piece):
            yield piece[skipped:] if skipped else piece


def _not_too_long(ref: Reference, descriptor: Descriptor, position: int) -> None:
    if position > descriptor.size:
        raise DataLoss(f"{ref.domain} sent more than the announced {descriptor.size} bytes of {descriptor.digest}")
