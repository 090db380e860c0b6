"""Images through a real registry over HTTP, with our client, and with skopeo as the stranger."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from kestrel.base.db import Database
from kestrel.content import Store, sweep
from kestrel.distribution import Client
from kestrel.http.server import Server, Tcp
from kestrel.images import ImageService
from kestrel.images.model import Progress
from kestrel.oci import media_types
from kestrel.oci.digest import Digest
from kestrel.registry import Registry
from kestrel.snapshots import Overlay
from kestrel.testing.images import tiny_image

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@dataclass
class Host:
    """One machine's store: its images, and its own registry over the same blobs."""

    root: Path
    database: Database
    content: Store
    snapshots: Overlay
    client: Client

    def __post_init__(self) -> None:
        self.registry = Registry(self.content, self.database)
        self.images = ImageService(
            self.content,
            self.snapshots,
            self.database,
            self.client,
            self.client,
            roots={"registry": self.registry.repositories},
        )


async def host(root: Path) -> AsyncIterator[Host]:
    root.mkdir()
    database = Database(root / "kestrel.db")
    async with Client.open() as client:
        yield Host(root, database, Store(root, database), Overlay(root, database), client)
    database.close()


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Host]:
    async for each in host(tmp_path / "here"):
        yield each


@pytest_asyncio.fixture
async def there(tmp_path: Path) -> AsyncIterator[Host]:
    async for each in host(tmp_path / "there"):
        yield each


@pytest_asyncio.fixture
async def address(there: Host) -> AsyncIterator[str]:
    async with Server(there.registry.handle, [Tcp()]) as server:
        yield server.addresses[0].rpartition("//")[2]


async def import_tiny(host: Host, name: str, **more: object) -> Digest:
    image = tiny_image(files={"etc/motd": b"hello"}, **more)  # type: ignore[arg-type]  # options of tiny_image
    with host.content.lease():
        for data in image.blobs.values():
            host.content.put(data)
        await host.images.import_image(image.manifest_bytes, image.config_bytes, names=[name])
    return image.id


@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
async def test_what_one_host_pushes_another_pulls(here: Host, there: Host, address: str, compression: str) -> None:
    name = f"{address}/team/app:1"
    identity = await import_tiny(here, name, compression=compression)
    told: list[Progress] = []
    digest = await here.images.push(name, progress=told.append)
    assert {each.status for each in told} >= {"pushing", "pushed"}
    pulled = await there.images.pull(name)
    assert (pulled.id, pulled.digest) == (identity, digest)
    assert {blob.digest for blob in pulled.blobs} <= {blob.digest for blob in here.content.walk()}
    assert (await here.images.resolve(f"{address}/team/app@{digest}")).id == identity
    if compression:
        assert (await here.images.resolve(name)).digest == digest
    else:
        assert {blob.media_type for blob in pulled.blobs} == {media_types.OCI_LAYER_GZIP}
    again: list[Progress] = []
    await here.images.push(name, progress=again.append)
    assert "pushed" not in {each.status for each in again}


async def test_a_layer_is_compressed_once_and_again_to_the_same_bytes(here: Host, there: Host, address: str) -> None:
    name = f"{address}/team/app:1"
    await import_tiny(here, name, compression="")
    digest = await here.images.push(name)
    packed = {blob.digest for blob in (await there.images.pull(name)).blobs}
    assert packed <= {blob.digest for blob in here.content.walk()}
    await here.images.prune(grace=0)
    assert not packed & {blob.digest for blob in here.content.walk()}
    assert await here.images.push(name) == digest  # the registry has it: nothing was needed
    assert not packed & {blob.digest for blob in here.content.walk()}
    lost = next(iter(packed))
    there.registry.repositories.remove_blob("team/app", lost)
    assert await here.images.push(name) == digest
    assert packed & {blob.digest for blob in here.content.walk()} == {lost}


async def test_removing_an_image_leaves_the_registrys_copy(here: Host, there: Host, address: str) -> None:
    name = f"{address}/app:1"
    await import_tiny(here, name)
    await here.images.push(name)
    await there.images.pull(name)
    await there.images.remove(name)
    assert there.snapshots.layers() == []
    await there.images.pull(name)
    sweep(there.content, {"images": there.images.roots, "registry": there.registry.repositories})
    assert (await there.images.resolve(name)).names == (name,)


@pytest.mark.clients
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
async def test_skopeo_copies_to_and_from_us_and_agrees(here: Host, address: str, tmp_path: Path) -> None:
    name = f"{address}/app:1"
    identity = await import_tiny(here, name)
    digest = await here.images.push(name)
    seen = json.loads(await skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert seen["Digest"] == digest
    await skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/layout:x")
    copy = f"{address}/copied:2"
    await skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:x", f"docker://{copy}")
    await skopeo(
        *("copy", "--dest-tls-verify=false", "--format=v2s2", f"oci:{tmp_path}/layout:x", f"docker://{address}/s2:1")
    )
    assert (await here.images.pull(copy)).id == identity
    schema2 = await here.images.pull(f"{address}/s2:1")
    assert schema2.layers == (await here.images.resolve(name)).layers
    assert schema2.media_type.startswith("application/vnd.docker")


async def skopeo(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("skopeo", "--insecure-policy", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode()
