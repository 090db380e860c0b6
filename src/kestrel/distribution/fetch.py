"""Blobs on their way in: streamed, counted, hashed, and taken up again where a connection broke.

A large blob travels in several parts at once, and leaves here in order.

After a break the rest is asked for with Range; a registry that ignores it and starts over has its first part
skipped. A break after progress does not count against the number of attempts, so that a long download over a bad
line ends. The last byte is handed out only after the whole is known to be right, so a caller that has read to the
end has what the digest promises.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from kestrel.base.errors import DataLoss, KestrelError, NotFound, TimedOut, Unavailable
from kestrel.distribution.hosts import hostname
from kestrel.distribution.resolve import pull_scope
from kestrel.distribution.transport import Call, Transport
from kestrel.http.client import CLIENT_ERRORS, explain, is_loopback
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Hasher
from kestrel.oci.reference import Reference

_AT_ONCE = 4
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


async def blob(
    transport: Transport, ref: Reference, descriptor: Descriptor, offset: int = 0, *, verify: bool = True
) -> AsyncIterator[bytes]:
    """Yield the bytes of a blob from `offset` on.

    From offset 0 the digest is verified (unless `verify` is off, for a caller that hashes anyway); from further on
    only the size can be. Raises NotFound, DataLoss for wrong bytes, Unavailable when it cannot be had to the end.
    """
    hasher = Hasher(descriptor.digest.algorithm) if verify and offset == 0 else None
    position, held = offset, b""
    async for piece in _in_parts(_Source(transport, ref, descriptor), offset):
        position += len(piece)
        if hasher:
            hasher.update(piece)
        if held:
            yield held
        held = piece
    if position < descriptor.size:
        raise DataLoss(f"{ref.domain} sent {position} of the {descriptor.size} bytes of {descriptor.digest}")
    if hasher and hasher.digest() != descriptor.digest:
        raise DataLoss(
            f"{ref.domain} sent bytes with digest {hasher.digest()} for {descriptor.digest}",
            hint="the registry, or something on the way to it, changes what it serves",
        )
    if held:
        yield held


@dataclass(slots=True)
class _Source:
    """A blob at a registry."""

    transport: Transport
    ref: Reference
    descriptor: Descriptor
    serves_parts: bool = False
    """Whether the registry answered a request for a part with that part."""


async def _in_parts(source: _Source, offset: int) -> AsyncIterator[bytes]:
    """Yield the bytes from `offset` on, in order; several parts of a large blob travel at once.

    The first part shows whether the registry serves parts at all: one that does not sends everything in answer to it.
    A registry on this machine is asked once, as one connection is as fast as the bytes can be hashed.
    """
    size, part = source.descriptor.size, source.transport.settings.part
    if size - offset < 2 * part or is_loopback(hostname(source.ref.domain)):
        async for piece in _stretch(source, offset, size):
            yield piece
        return
    waiting = [(start, min(start + part, size)) for start in range(offset + part, size, part)][::-1]
    coming: deque[asyncio.Task[bytes]] = deque()
    reached = offset
    try:
        async for piece in _stretch(source, offset, offset + part):
            reached += len(piece)
            while source.serves_parts and waiting and len(coming) < _AT_ONCE - 1:
                coming.append(asyncio.create_task(_collect(source, *waiting.pop())))
            yield piece
        if reached != offset + part:  # it was everything, or the answer was cut short
            return
        while coming or waiting:
            while waiting and len(coming) < _AT_ONCE:
                coming.append(asyncio.create_task(_collect(source, *waiting.pop())))
            yield await coming[0]
            coming.popleft()
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)


async def _collect(source: _Source, start: int, end: int) -> bytes:
    data = b"".join([piece async for piece in _stretch(source, start, end)])
    if len(data) != end - start:
        raise DataLoss(f"{source.ref.domain} sent another part of {source.descriptor.digest} than was asked for")
    return data


async def _stretch(source: _Source, start: int, end: int) -> AsyncIterator[bytes]:
    """Yield what lies between two offsets (all that follows, from a registry that sends no parts), over breaks."""
    transport, ref, descriptor = source.transport, source.ref, source.descriptor
    position, failures = start, 0
    while position < end or position == 0 == descriptor.size:
        begun = position
        try:
            async with _open(source, position, end) as pieces:
                async for piece in pieces:
                    position += len(piece)
                    _not_too_long(ref, descriptor, position)
                    yield piece
        except (Unavailable, TimedOut) as error:
            if not isinstance(error.__cause__, CLIENT_ERRORS):
                raise
            failures = failures + 1 if position == begun else 1
            if failures >= transport.settings.attempts:
                raise
            await transport.pause(failures)
            continue
        return


@asynccontextmanager
async def _open(source: _Source, position: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
    ref, descriptor = source.ref, source.descriptor
    headers = _range(position, end, descriptor.size)
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
        async with source.transport.send(call) as answer:
            source.serves_parts = answer.status == 206
            yield _pieces(answer, ref, descriptor, position)
    except NotFound as error:
        if not descriptor.urls:
            raise
        async with _elsewhere(source.transport, descriptor, headers, error) as answer:
            source.serves_parts = answer.status == 206
            yield _pieces(answer, ref, descriptor, position)


def _range(position: int, end: int, size: int) -> dict[str, str]:
    if end < size:
        return {"Range": f"bytes={position}-{end - 1}"}
    return {"Range": f"bytes={position}-"} if position else {}


@asynccontextmanager
async def _elsewhere(
    transport: Transport, descriptor: Descriptor, headers: Mapping[str, str], missing: KestrelError
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open a foreign layer where its descriptor says it lies; nobody's credentials go there."""
    for url in descriptor.urls:
        if not url.startswith(("https://", "http://")):
            continue
        try:
            answer = await transport.elsewhere(url, headers)
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
    start, length = 0, answer.content_length
    size = length
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) > position:
            raise DataLoss(f"{ref.domain} sent another part of {descriptor.digest} than was asked for")
        start, size = int(match[1]), None if match[3] == "*" else int(match[3])
    if size is not None and size != descriptor.size:
        raise DataLoss(f"{ref.domain} has {size} bytes for {descriptor.digest}, announced were {descriptor.size}")
    async for piece in answer.content.iter_any():
        skipped = min(max(position - start, 0), len(piece))
        start += len(piece)
        if skipped < len(piece):
            yield piece[skipped:] if skipped else piece


def _not_too_long(ref: Reference, descriptor: Descriptor, position: int) -> None:
    if position > descriptor.size:
        raise DataLoss(f"{ref.domain} sent more than the announced {descriptor.size} bytes of {descriptor.digest}")
