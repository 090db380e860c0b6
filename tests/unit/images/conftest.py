# ruff: noqa: ARG002 - the fake has the parameters of the protocols it fulfils
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import NotFound
from kestrel.content import Store
from kestrel.images import ImageService
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index
from kestrel.oci.reference import Reference
from kestrel.snapshots import Erofs, Overlay, Snapshotter
from kestrel.testing.images import TinyImage


class FakeRegistry:
    """A registry in memory that a test can break. Fulfils `ImageFetcher` and `ImagePusher`."""

    def __init__(self) -> None:
        self.tags: dict[str, Descriptor] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.fetched: list[tuple[Digest, int]] = []
        self.pushed: list[Digest] = []
        self.break_after: dict[Digest, int] = {}
        self.gate: asyncio.Event | None = None

    def serve(self, name: str, image: TinyImage, *, index: bool = False) -> Descriptor:
        self.blobs.update(image.blobs)
        found = image.manifest
        if index:
            data = Index.of([Descriptor(**{**fields(found), "platform": image.config.platform})]).encode()
            found = Descriptor.of(media_types.OCI_INDEX, data)
            self.blobs[found.digest] = data
        self.tags[str(Reference.parse(name))] = found
        return found

    def with_credentials(self, credentials: Any) -> "FakeRegistry":
        return self

    async def resolve(self, ref: Reference, platform: Any = None) -> Descriptor:
        if ref.digest:
            kind = media_types.OCI_INDEX if b'"manifests"' in self.blobs[ref.digest] else media_types.OCI_MANIFEST
            return Descriptor(media_type=kind, digest=ref.digest, size=len(self.blobs[ref.digest]))
        if str(ref) not in self.tags:
            raise NotFound(f"no such image: {ref.familiar()}")
        return self.tags[str(ref)]

    async def manifest(self, ref: Reference, descriptor: Descriptor | None = None) -> tuple[Descriptor, bytes]:
        found = descriptor or await self.resolve(ref)
        return found, self.blobs[found.digest]

    async def blob(
        self, ref: Reference, descriptor: Descriptor, offset: int = 0, *, verify: bool = True
    ) -> AsyncIterator[bytes]:
        self.fetched.append((descriptor.digest, offset))
        data = self.blobs[descriptor.digest]
        until = self.break_after.pop(descriptor.digest, None)
        if self.gate:
            await self.gate.wait()
        yield data[offset:until]
        if until is not None:
            raise ConnectionResetError("the line broke")

    async def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],
        mount_from: Reference | None = None,
        *,
        sent: Callable[[int], None] = lambda _: None,
    ) -> bool:
        if descriptor.digest in self.blobs:
            return False
        with open() as file:
            self.blobs[descriptor.digest] = file.read()
        sent(descriptor.size)
        self.pushed.append(descriptor.digest)
        return True

    async def push_manifest(self, ref: Reference, media_type: str, data: bytes) -> Descriptor:
        descriptor = Descriptor.of(media_type, data)
        self.blobs[descriptor.digest] = data
        self.tags[str(ref)] = descriptor
        return descriptor


def fields(record: Descriptor) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("media_type", "digest", "size")}


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "kestrel.db")
    yield database
    database.close()


@pytest.fixture
def content(tmp_path: Path, database: Database) -> Store:
    return Store(tmp_path, database)


@pytest.fixture(params=[Overlay, Erofs])
def snapshots(tmp_path: Path, database: Database, request: pytest.FixtureRequest) -> "Iterator[Overlay | Erofs]":
    made = request.param(tmp_path, database)
    yield made
    if isinstance(made, Erofs):
        made.close()


@pytest.fixture
def users() -> dict[Digest, list[str]]:
    return {}


@pytest.fixture
def images(
    content: Store,
    snapshots: Snapshotter,
    database: Database,
    registry: FakeRegistry,
    users: dict[Digest, list[str]],
) -> ImageService:
    return ImageService(content, snapshots, database, registry, registry, in_use=lambda image: users.get(image, []))
