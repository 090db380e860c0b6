"""A cache of other registries, filled as it is asked: `hub/library/busybox` is Docker Hub's `library/busybox`.

A tag is asked for upstream with HEAD, which is free of Docker Hub's limit, and not more often than once a minute; what
is not there is remembered for a while too. A manifest is fetched by digest, and only when it changed. When upstream
cannot be reached, or says that it was asked too often, what is here is served, however old.

A blob is one download for any number of clients (`Flight`): its bytes go to a file, and whoever wants them reads
behind, the first byte as soon as it is there. The last byte is handed out only after the digest was found right and the
blob is kept, so nobody can take a wrong blob for whole. A download that breaks off goes on where it ended, also after a
restart; it goes to its end even when its clients leave. Only what a manifest of the repository names is fetched.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from kestrel.base.errors import Conflict, DataLoss, KestrelError, NotFound
from kestrel.content import Store, Upload
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.reference import Reference
from kestrel.registry.cached import CachedRepositories
from kestrel.registry.metadata import UpstreamRule
from kestrel.registry.metrics import Metrics
from kestrel.registry.repositories import Repositories, Stored

FRESH: Final = 60.0
"""Seconds for which a tag, or that there is none, is not asked for again."""
_BATCH: Final = 256 * 1024
_MOST_REMEMBERED: Final = 10_000
_UNREACHABLE = ("unavailable", "timed-out", "resource-exhausted", "unauthenticated", "permission-denied")


class Upstream(Protocol):
    """What this needs of a client of other registries."""

    async def resolve(self, ref: Reference) -> Descriptor:
        """Return what a tag stands for; raises NotFound."""
        ...

    async def manifest(self, ref: Reference, descriptor: "Descriptor | None" = None) -> tuple[Descriptor, bytes]:
        """Return descriptor and bytes of a manifest, verified."""
        ...

    def blob(
        self, ref: Reference, descriptor: Descriptor, offset: int = 0, *, verify: bool = True
    ) -> AsyncIterator[bytes]:
        """Yield a blob from an offset on."""
        ...

    async def tags(self, ref: Reference) -> list[str]:
        """Return all tags of a repository."""
        ...


@dataclass(frozen=True, slots=True)
class Cached:
    """A repository here, and what it is a cache of."""

    name: str
    ref: Reference


class Flight:
    """One blob on its way in; `read` gives its bytes to any number of readers while it comes."""

    def __init__(self, descriptor: Descriptor, *paths: Path) -> None:
        self.descriptor = descriptor
        self._paths = paths  # of the file while it is written, and once it is whole
        self.written = 0
        self.error: BaseException | None = None
        self.landed = False
        self._moved = asyncio.Event()

    def move(self, written: int) -> None:
        """Say how many bytes there are."""
        self.written = written
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    @property
    def available(self) -> int:
        """How many bytes may be handed out now: not the last one before all were found right."""
        return self.descriptor.size if self.landed else min(self.written, self.descriptor.size - 1)

    async def begun(self, start: int) -> None:
        """Return when the byte at `start` can be had; raises what ended the download before."""
        while self.available <= start and not self.landed:
            if self.error is not None:
                raise self.error
            await self._moved.wait()

    async def read(self, start: int, count: int) -> AsyncIterator[bytes]:
        """Yield `count` bytes from `start` on as they come."""
        position, end = start, start + count
        await self.begun(start)
        fd = self._open()
        try:
            while position < end:
                await self.begun(position)
                wanted = min(self.available, end) - position
                data = await asyncio.to_thread(os.pread, fd, min(wanted, 4 * _BATCH), position)
                if not data:
                    raise DataLoss("the file of a download is shorter than it was")
                position += len(data)
                yield data
        finally:
            os.close(fd)

    def _open(self) -> int:
        for path in self._paths:
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise DataLoss(f"the download of {self.descriptor.digest} was thrown away")


class PullThrough:
    """The rules of the cache over the registry's repositories."""

    def __init__(
        self,
        repositories: Repositories,
        kept: CachedRepositories,
        content: Store,
        metrics: Metrics,
        upstream: "Upstream | None",
        *,
        fresh_seconds: float = FRESH,
    ) -> None:
        self._repositories = repositories
        self.kept = kept
        self._content = content
        self._metrics = metrics
        self._upstream = upstream
        self._fresh = fresh_seconds
        self._checked: dict[tuple[str, str], float] = {}
        self._absent: dict[tuple[str, str], tuple[float, str]] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[Stored]] = {}
        self._flights: dict[Digest, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def locate(self, name: str, namespace: str = "") -> "Cached | None":
        """Return what a repository is a cache of, None when it is our own.

        `namespace` is what a client that takes us for a mirror says the name is of (`?ns=docker.io`); one that says
        nothing (docker) means the default upstream, if we have no such repository ourselves.
        """
        rules = self.kept.rules if self._upstream else ()
        for rule in rules:
            if name.startswith(f"{rule.prefix}/"):
                return _cached(rule, name.removeprefix(f"{rule.prefix}/"))
        for rule in rules:
            by_default = rule.default and not namespace and not self._repositories.exists(name)
            if namespace == rule.domain or by_default:
                return _cached(rule, name)
        return None

    # -- manifests

    async def manifest(self, cached: Cached, version: str) -> Stored:
        """Return a manifest by tag or digest; raises NotFound, or why it cannot be had."""
        key = cached.name, version
        here = await asyncio.to_thread(self._repositories.manifest, cached.name, version)
        if here is not None and (":" in version or self._checked.get(key, 0) > time.monotonic() - self._fresh):
            return here
        moment, why = self._absent.get(key, (0.0, ""))
        if moment > time.monotonic() - self._fresh:
            self._count(cached, "known absent")
            raise NotFound(why)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(cached, version, here))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _ask(self, cached: Cached, version: str, here: "Stored | None") -> Stored:
        assert self._upstream is not None
        key = cached.name, version
        try:
            if ":" in version:
                ref = replace(cached.ref, tag="", digest=Digest.parse(version))
                found, data = await self._upstream.manifest(ref)
            else:
                ref = cached.ref.with_tag(version)
                found = await self._upstream.resolve(ref)
                if here is not None and found.digest == here.descriptor.digest:
                    self._remember(key)
                    self._count(cached, "unchanged")
                    return here
                found, data = await self._known_or_fetched(cached, ref, found)
            tags = () if ":" in version else (version,)
            await asyncio.to_thread(self.kept.keep, cached.name, found, data, tags)
        except NotFound as error:
            if len(self._absent) >= _MOST_REMEMBERED:
                self._absent.clear()
            self._absent[key] = time.monotonic(), error.message
            self._count(cached, "absent")
            raise
        except Conflict:
            if here is None:
                raise
            return here  # the tag moved upstream and is immutable here
        except KestrelError as error:
            self._count(cached, "unreachable")
            if here is None or error.kind not in _UNREACHABLE:
                raise
            return here
        self._remember(key)
        self._count(cached, "fetched")
        return Stored(found, data)

    def _remember(self, key: tuple[str, str]) -> None:
        if len(self._checked) >= _MOST_REMEMBERED:
            self._checked.clear()
        self._checked[key] = time.monotonic()

    async def _known_or_fetched(self, cached: Cached, ref: Reference, found: Descriptor) -> tuple[Descriptor, bytes]:
        assert self._upstream is not None
        here = await asyncio.to_thread(self._repositories.manifest, cached.name, found.digest)
        if here is not None:
            return here.descriptor, here.data
        return await self._upstream.manifest(replace(ref, tag="", digest=found.digest), found)

    async def tags(self, cached: Cached) -> "list[str] | None":
        """Return the tags that upstream has, None when it does not say."""
        assert self._upstream is not None
        try:
            return sorted(await self._upstream.tags(cached.ref))
        except KestrelError:
            return None

    # -- blobs

    async def blob(self, cached: Cached, digest: Digest) -> "Flight | None":
        """Return the download of a blob that is not here, None when it is by now. Raises NotFound."""
        descriptor = await asyncio.to_thread(self.kept.named, cached.name, digest)
        if descriptor is None:
            raise NotFound(f"no manifest that was pulled through {cached.name} names {digest}")
        if await asyncio.to_thread(self.kept.adopt, cached.name, digest):
            return None
        flight = self._flights.get(digest)
        if flight is None:
            paths = self._content.upload_path(_upload(digest)), self._content.path(digest)
            flight = self._flights[digest] = Flight(descriptor, *paths)
            task = asyncio.create_task(self._fly(flight, cached))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return flight

    async def size(self, cached: Cached, digest: Digest) -> "int | None":
        """Return the size that a manifest gives for a blob, without asking for it."""
        descriptor = await asyncio.to_thread(self.kept.named, cached.name, digest)
        return descriptor.size if descriptor else None

    async def _fly(self, flight: Flight, cached: Cached) -> None:
        digest = flight.descriptor.digest
        try:
            with self._content.upload(_upload(digest), algorithm=digest.algorithm) as upload:
                await self._receive(flight, upload, cached)
            self._count(cached, "fetched blob")
        except asyncio.CancelledError as error:
            flight.error = ConnectionResetError("the registry is stopping")
            raise error
        except BaseException as error:  # noqa: BLE001 - it is raised to whoever waits
            flight.error = error
            self._count(cached, "failed blob")
        finally:
            flight.move(flight.written)
            self._flights.pop(digest, None)

    async def _receive(self, flight: Flight, upload: Upload, cached: Cached) -> None:
        assert self._upstream is not None
        descriptor = flight.descriptor
        if upload.offset > descriptor.size:
            upload.truncate()
        flight.move(upload.offset)
        pieces: list[bytes] = []
        waiting = 0
        async for piece in self._upstream.blob(cached.ref, descriptor, upload.offset, verify=False):
            pieces.append(piece)
            waiting += len(piece)
            if waiting >= _BATCH or flight.written < _BATCH:  # the first bytes at once
                await asyncio.to_thread(upload.write, b"".join(pieces))
                pieces, waiting = [], 0
                flight.move(upload.offset)
        if pieces:
            await asyncio.to_thread(upload.write, b"".join(pieces))
            flight.move(upload.offset)
        try:
            await asyncio.to_thread(self._land, upload, descriptor, cached.name)
        except DataLoss:
            upload.abort()
            raise
        flight.landed = True

    def _land(self, upload: Upload, descriptor: Descriptor, name: str) -> None:
        with self._content.lease():
            upload.commit(descriptor.digest, descriptor.size)
            self._repositories.add_blob(name, descriptor.digest)

    async def close(self) -> None:
        """Stop every download; what came is kept, and the next one goes on from there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _count(self, cached: Cached, outcome: str) -> None:
        self._metrics.count("upstream_requests_total", upstream=cached.ref.domain, outcome=outcome)


def _upload(digest: Digest) -> str:
    return f"cache-{digest.algorithm}-{digest.hex}"


def _cached(rule: UpstreamRule, rest: str) -> Cached:
    ref = Reference.parse(f"{rule.domain}/{rest}")
    return Cached(f"{rule.prefix}/{ref.path}", ref)
