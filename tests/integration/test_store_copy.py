"""Images copied from registry to registry: every platform, and what refers to them."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import NotFound
from kestrel.content import Store
from kestrel.distribution import Client
from kestrel.http.server import Server, Tcp
from kestrel.images import ImageService
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.manifest import Index, Manifest
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference
from kestrel.registry import Registry
from kestrel.snapshots import Overlay
from kestrel.testing.images import TinyImage, tiny_image
from kestrel.testing.instance import Instance


@asynccontextmanager
async def registry(root: Path) -> AsyncIterator[str]:
    root.mkdir()
    database = Database(root / "kestrel.db")
    async with Server(Registry(Store(root, database), database).handle, [Tcp()]) as server:
        yield server.addresses[0].partition("//")[2]
    database.close()


@pytest.fixture
async def first(tmp_path: Path) -> AsyncIterator[str]:
    async with registry(tmp_path / "first") as address:
        yield address


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[str]:
    async with registry(tmp_path / "second") as address:
        yield address


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client.open() as opened:
        yield opened


@pytest.fixture
async def images(tmp_path: Path, client: Client) -> AsyncIterator[ImageService]:
    (tmp_path / "here").mkdir()
    database = Database(tmp_path / "here/kestrel.db")
    content = Store(tmp_path / "here", database)
    yield ImageService(content, Overlay(tmp_path / "here", database), database, client, client)
    database.close()


async def put(client: Client, ref: Reference, kind: str, data: bytes) -> Descriptor:
    await client.push_blob(ref, Descriptor.of(kind, data), lambda: io.BytesIO(data))
    return Descriptor.of(kind, data)


async def push(client: Client, ref: Reference, image: TinyImage) -> Descriptor:
    for digest, data in image.blobs.items():
        if digest != image.manifest.digest:
            await put(client, ref, media_types.OCI_LAYER_GZIP, data)
    return await client.push_manifest(
        ref.with_digest(image.manifest.digest), image.manifest.media_type, image.manifest_bytes
    )


async def serve(client: Client, name: str) -> tuple[Descriptor, list[Descriptor]]:
    """Push an index of two platforms, one of them signed; returns its descriptor and those of its manifests."""
    ref = Reference.parse(name)
    manifests = []
    for architecture in ("amd64", "arm64"):
        image = tiny_image(files={"arch": architecture.encode()}, busybox=False)
        pushed = await push(client, ref, image)
        platform = Platform(os="linux", architecture=architecture)
        manifests.append(
            Descriptor(media_type=pushed.media_type, digest=pushed.digest, size=pushed.size, platform=platform)
        )
    index = Index.of(manifests).encode()
    top = await client.push_manifest(ref, media_types.OCI_INDEX, index)
    empty = await put(client, ref, "application/vnd.oci.empty.v1+json", b"{}")
    subject = Descriptor(media_type=manifests[0].media_type, digest=manifests[0].digest, size=manifests[0].size)
    signature = Manifest.of(empty, [empty], subject=subject, artifact_type="application/signature").encode()
    descriptor = Descriptor.of(media_types.OCI_MANIFEST, signature)
    await client.push_manifest(ref.with_digest(descriptor.digest), media_types.OCI_MANIFEST, signature)
    return top, manifests


async def test_every_platform_is_copied_and_nothing_is_left_here(
    first: str, second: str, client: Client, images: ImageService
) -> None:
    top, manifests = await serve(client, f"{first}/team/app:1")
    target = Reference.parse(f"{second}/copy/of:2")
    assert await images.copy(f"{first}/team/app:1", str(target)) == top.digest
    assert (await client.resolve(target)).digest == top.digest
    for each in manifests:
        await client.manifest(target.with_digest(each.digest), each)
    assert await client.referrers(target, manifests[0].digest) == []
    assert await images.list() == []
    await images.prune(grace=0)
    assert (await images.usage()).blob_count == 0


async def test_signatures_are_copied_when_asked_for(
    first: str, second: str, client: Client, images: ImageService
) -> None:
    _, manifests = await serve(client, f"{first}/team/app:1")
    target = Reference.parse(f"{second}/copy/of:2")
    await images.copy(f"{first}/team/app:1", str(target), referrers=True)
    (found,) = await client.referrers(target, manifests[0].digest)
    assert found.artifact_type == "application/signature"


async def test_one_platform_is_copied_alone(first: str, second: str, client: Client, images: ImageService) -> None:
    _, manifests = await serve(client, f"{first}/team/app:1")
    target = Reference.parse(f"{second}/copy/of:2")
    arm = Platform(os="linux", architecture="arm64")
    assert await images.copy(f"{first}/team/app:1", str(target), platform=arm) == manifests[1].digest
    with pytest.raises(NotFound):
        await client.manifest(target.with_digest(manifests[0].digest))


async def test_within_a_registry_blobs_are_mounted_and_not_fetched(
    first: str, client: Client, images: ImageService
) -> None:
    await serve(client, f"{first}/team/app:1")
    await images.copy(f"{first}/team/app:1", f"{first}/promoted/app:1")
    assert (await images.usage()).blob_count == 3  # the index and two manifests
    assert await client.tags(Reference.parse(f"{first}/promoted/app")) == ["1"]


async def test_a_copy_of_nothing_says_so(first: str, second: str, images: ImageService) -> None:
    with pytest.raises(NotFound, match="team/none:1"):
        await images.copy(f"{first}/team/none:1", f"{second}/x:1")


@pytest.mark.root
def test_the_command_copies_into_this_nodes_own_registry(platform: Instance) -> None:
    name = f"{platform.registry}/team/box:1"
    platform("tag", "box", name)
    platform("push", name)
    digest = platform("copy", "-q", name, f"{platform.registry}/promoted/box:stable").out
    platform("rmi", name)
    platform("pull", f"{platform.registry}/promoted/box:stable")
    assert platform("run", "--rm", f"{platform.registry}/promoted/box:stable", "echo", "here").out == "here\n"
    assert digest.startswith("sha256:")
