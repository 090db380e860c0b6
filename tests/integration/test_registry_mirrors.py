"""A registry with mirrors before it, all on loopback: who is asked, and who answers when one cannot."""

import asyncio
import contextlib
import io
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from kestrel.base.db import Database
from kestrel.base.errors import NotFound
from kestrel.content import Store
from kestrel.distribution import Client, Settings
from kestrel.http.server import Server, Tcp
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.manifest import Manifest
from kestrel.oci.reference import Reference
from kestrel.registry import Registry

CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
LAYER = os.urandom(300_000)
MANIFEST = Manifest.of(
    Descriptor.of(media_types.OCI_CONFIG, CONFIG), [Descriptor.of(media_types.OCI_LAYER, LAYER)]
).encode()


@dataclass
class Watched:
    """A registry that remembers what it was asked."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    broken: int = 0
    """The status it answers everything with instead, if any."""
    ranges: list[str] = field(default_factory=list)
    whole: bool = False
    """Whether it knows nothing of ranges."""
    refused: str = "nothing"
    """Ranges that begin so are not found."""

    @property
    def content(self) -> list[str]:
        return [line for line in self.asked if not line.endswith("/v2/")]


@contextlib.asynccontextmanager
async def registry(root: Path) -> AsyncIterator[Watched]:
    watched = Watched()
    root.mkdir()
    database = Database(root / "kestrel.db")
    served = Registry(Store(root, database), database)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        watched.asked.append(f"{request.method} {request.path_qs}")
        watched.headers.append(request.headers.get("X-Team", ""))
        wanted = request.headers.get("Range", "")
        watched.ranges += [wanted.removeprefix("bytes=")] if wanted else []
        if watched.broken or wanted.startswith(watched.refused):
            return web.Response(status=watched.broken or 404)
        if watched.whole:
            request = request.clone(headers={k: v for k, v in request.headers.items() if k != "Range"})
        return await served.handle(request)

    async with Server(handle, [Tcp()]) as server:
        watched.address = server.addresses[0].partition("://")[2]
        yield watched
    database.close()


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[Watched]:
    async with registry(tmp_path / "mirror") as watched:
        yield watched


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Watched]:
    async with registry(tmp_path / "origin") as watched:
        yield watched


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    return tmp_path / "etc"


def hosts_toml(etc: Path, domain: str, text: str) -> None:
    path = etc / "containerd/certs.d" / domain / "hosts.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def client(etc: Path) -> Client:
    return Client.open(Settings(etc=etc, attempts=1))


async def push(who: Client, name: str) -> Descriptor:
    ref = Reference.parse(name)
    for data in (CONFIG, LAYER):
        blob = Descriptor.of(media_types.OCI_LAYER, data)
        await who.push_blob(ref, blob, lambda data=data: io.BytesIO(data))  # type: ignore[misc]
    return await who.push_manifest(ref, media_types.OCI_MANIFEST, MANIFEST)


async def pull(who: Client, name: str) -> bytes:
    ref = Reference.parse(name)
    _, data = await who.manifest(ref)
    assert data == MANIFEST
    return b"".join([piece async for piece in who.blob(ref, Descriptor.of(media_types.OCI_LAYER, LAYER))])


async def test_a_mirror_that_has_the_image_spares_the_registry(etc: Path, mirror: Watched, origin: Watched) -> None:
    async with client(etc) as who:
        await push(who, f"{mirror.address}/team/app:1")
        await push(who, f"{origin.address}/team/app:1")
        hosts_toml(etc, origin.address, f'[host."http://{mirror.address}"]\n\n')
        origin.asked.clear()
        assert await pull(who, f"{origin.address}/team/app:1") == LAYER
        assert origin.content == []
        assert all(f"ns={origin.address}" in line.replace("%3A", ":") for line in mirror.asked[-3:])


async def test_what_a_mirror_does_not_have_comes_from_the_registry(etc: Path, mirror: Watched, origin: Watched) -> None:
    async with client(etc) as who:
        await push(who, f"{origin.address}/team/app:1")
        hosts_toml(etc, origin.address, f'[host."http://{mirror.address}"]\nheader = {{x-team = "blue"}}\n')
        assert await pull(who, f"{origin.address}/team/app:1") == LAYER
        assert len(mirror.content) == 3
        assert set(mirror.headers) == {"blue"}
        assert set(origin.headers) == {""}
        with pytest.raises(NotFound) as caught:
            await pull(who, f"{origin.address}/team/app:2")
        assert f"mirror {mirror.address}: answered 404" in (caught.value.hint or "")


async def test_a_mirror_that_only_pulls_never_says_what_a_tag_is(etc: Path, mirror: Watched, origin: Watched) -> None:
    async with client(etc) as who:
        await push(who, f"{mirror.address}/team/app:1")
        await push(who, f"{origin.address}/team/app:1")
        hosts_toml(etc, origin.address, f'[host."http://{mirror.address}"]\ncapabilities = ["pull"]\n')
        for watched in (mirror, origin):
            watched.asked.clear()
        assert await pull(who, f"{origin.address}/team/app:1") == LAYER
        assert [line.partition("?")[0] for line in origin.content] == ["HEAD /v2/team/app/manifests/1"]
        assert len(mirror.content) == 2


async def test_a_mirror_that_is_away_costs_one_attempt_and_then_rests(etc: Path, origin: Watched) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        hosts_toml(etc, origin.address, f'[host."http://{address}"]\ncapabilities = ["pull", "resolve"]\n')
        async with client(etc) as who:
            await push(who, f"{origin.address}/team/app:1")
            assert await pull(who, f"{origin.address}/team/app:1") == LAYER
            with pytest.raises(NotFound) as caught:
                await pull(who, f"{origin.address}/team/app:2")
            assert "could not be reached a moment ago" in (caught.value.hint or "")


async def test_a_mirror_in_trouble_is_passed_over(etc: Path, mirror: Watched, origin: Watched) -> None:
    async with client(etc) as who:
        await push(who, f"{origin.address}/team/app:1")
        hosts_toml(etc, origin.address, f'[host."http://{mirror.address}"]\n')
        for mirror.broken in (500, 429, 403, 401):
            assert await pull(who, f"{origin.address}/team/app:1") == LAYER


async def test_what_is_pushed_goes_to_the_registry_and_asks_no_mirror(
    etc: Path, mirror: Watched, origin: Watched
) -> None:
    async with client(etc) as who:
        await push(who, f"{mirror.address}/team/app:1")  # so the mirror has every blob
        read_only = 'capabilities = ["pull", "resolve"]'
        hosts_toml(etc, origin.address, f'[host."http://{mirror.address}"]\n{read_only}\n')
        mirror.asked.clear()
        await push(who, f"{origin.address}/team/app:1")
        assert mirror.asked == []
        assert any(line.startswith("PUT") for line in origin.asked)


async def test_podman_s_location_is_where_an_image_is_found(etc: Path, mirror: Watched) -> None:
    path = etc / "containers/registries.conf"
    path.parent.mkdir(parents=True)
    text = f'[[registry]]\nprefix = "reg.invalid/team"\nlocation = "{mirror.address}/copies/of"\n'
    path.write_text(text)
    async with client(etc) as who:
        await push(who, "reg.invalid/team/app:1")
        assert await pull(who, "reg.invalid/team/app:1") == LAYER
        assert await who.tags(Reference.parse(f"{mirror.address}/copies/of/app")) == ["1"]


@pytest.fixture
async def elsewhere(etc: Path, origin: Watched) -> str:
    """The name of a registry that is not this machine's, though what answers for it is."""
    path = etc / "containers/registries.conf"
    path.parent.mkdir(parents=True)
    path.write_text(f'[[registry]]\nprefix = "reg.invalid"\nlocation = "{origin.address}"\n')
    async with client(etc) as who:
        await push(who, "reg.invalid/team/app:1")
    return "reg.invalid/team/app:1"


async def test_a_large_blob_travels_in_parts_and_arrives_in_order(etc: Path, origin: Watched, elsewhere: str) -> None:
    async with Client.open(Settings(etc=etc, part=70_000)) as who:
        assert await pull(who, elsewhere) == LAYER
        assert origin.ranges == ["0-69999", "70000-139999", "140000-209999", "210000-279999", "280000-"]
        origin.ranges.clear()
        blob = Descriptor.of(media_types.OCI_LAYER, LAYER)
        rest = who.blob(Reference.parse(elsewhere), blob, 100_000)
        assert b"".join([piece async for piece in rest]) == LAYER[100_000:]
        assert origin.ranges[0] == "100000-169999"


async def test_a_registry_that_knows_no_parts_sends_the_blob_once(etc: Path, origin: Watched, elsewhere: str) -> None:
    origin.whole = True
    async with Client.open(Settings(etc=etc, part=70_000)) as who:
        assert await pull(who, elsewhere) == LAYER
        assert sum("/blobs/" in line and line.startswith("GET") for line in origin.asked) == 1


async def test_a_part_that_never_comes_ends_the_others(etc: Path, origin: Watched, elsewhere: str) -> None:
    origin.refused = "bytes=210000-"
    async with Client.open(Settings(etc=etc, part=70_000, attempts=1)) as who:
        with pytest.raises(NotFound):
            await pull(who, elsewhere)
    assert not [task for task in asyncio.all_tasks() if "_collect" in str(task.get_coro())]
