"""The pull-through cache: our registry before another one, which is slow, down, wrong or changes as a test wants it."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from kestrel.base.db import Database
from kestrel.content import Store, sweep
from kestrel.distribution import Client
from kestrel.distribution import Settings as ClientSettings
from kestrel.http.client import session
from kestrel.http.server import Server, Tcp
from kestrel.oci.digest import Digest
from kestrel.registry import Registry, Settings
from kestrel.registry.metadata import TagRule, UpstreamRule

from .test_registry_peers import layers_of, run
from .test_registry_server import World, code, image

LAYER = os.urandom(3_000_000)


@dataclass
class Upstream:
    """The other registry, and what is done to its answers."""

    world: World
    asked: "Counter[str]" = field(default_factory=Counter)
    down: bool = False
    gate: "asyncio.Event | None" = None
    """While it is not set, only the first half of a blob is sent."""
    broken_off: bool = False
    wrong: bool = False
    ranges: list[str] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        kind = "blob" if "/blobs/" in request.path else "manifest" if "/manifests/" in request.path else "other"
        if kind != "other" and request.method in ("GET", "HEAD"):
            self.asked[f"{request.method} {kind}"] += 1
        if kind == "blob" and "Range" in request.headers:
            self.ranges.append(request.headers["Range"])
        if self.down:
            return web.Response(status=503)
        if kind == "blob" and request.method == "GET" and (self.gate or self.broken_off or self.wrong):
            return await self._blob(request)
        return await self.world.registry.handle(request)

    async def _blob(self, request: web.BaseRequest) -> web.StreamResponse:
        data = LAYER if Digest.of(LAYER) in request.path else b"{}"
        if self.wrong:
            data = b"x" * len(data)
        answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2])
        if self.broken_off:
            assert request.transport is not None
            request.transport.close()
            return answer
        if self.gate:
            await self.gate.wait()
        await answer.write(data[len(data) // 2 :])
        await answer.write_eof()
        return answer


@dataclass
class Cache(World):
    upstream: Upstream

    def refuse_to_be_fresh(self) -> None:
        self.registry._through._fresh = 0


@pytest_asyncio.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    databases = [Database(tmp_path / name / "kestrel.db") for name in ("there", "here")]
    stores = [Store(tmp_path / name, database) for name, database in zip(("there", "here"), databases, strict=True)]
    there = Registry(stores[0], databases[0])
    upstream = Upstream(World("", None, there, stores[0], databases[0]))  # type: ignore[arg-type]
    async with (
        session() as http,
        Server(upstream.handle, [Tcp()]) as other,
        Client.open(ClientSettings(attempts=1, backoff_seconds=0.01)) as client,
    ):
        upstream.world.base, upstream.world.http = other.addresses[0], http
        here = Registry(stores[1], databases[1], Settings(), client)
        here.cached.set_rule(UpstreamRule("hub", other.addresses[0].removeprefix("http://")), present=True)
        async with Server(here.handle, [Tcp()]) as server:
            await upstream.world.push_image("library/app", "v1", LAYER)
            upstream.asked.clear()
            yield Cache(server.addresses[0], http, here, stores[1], databases[1], upstream)
        await here.close()
    for database in databases:
        database.close()


PATH = "/v2/hub/library/app"
BLOB = f"{PATH}/blobs/{Digest.of(LAYER)}"


async def test_an_image_is_fetched_once_and_served_from_then_on(cache: Cache) -> None:
    for _ in range(3):
        status, headers, body = await cache.ask("GET", f"{PATH}/manifests/v1")
        assert (status, body) == (200, image(LAYER))
        assert headers["docker-content-digest"] == Digest.of(body)
        assert (await cache.ask("GET", BLOB))[2] == LAYER
        assert (await cache.ask("GET", f"{PATH}/manifests/{Digest.of(body)}"))[2] == body
        assert (await cache.ask("GET", BLOB, headers={"Range": "bytes=5-9"}))[2] == LAYER[5:10]
    assert cache.upstream.asked == {"HEAD manifest": 1, "GET manifest": 1, "GET blob": 1}
    metrics = (await cache.ask("GET", "/metrics"))[2].decode()
    host = cache.upstream.world.base.removeprefix("http://")
    assert f'kestrel_registry_upstream_requests_total{{upstream="{host}",outcome="fetched"}} 1' in metrics
    assert 'kestrel_registry_requests_total{method="GET",endpoint="blob",code="206"} 3' in metrics
    assert "kestrel_registry_tags 1" in metrics


async def test_the_first_byte_comes_before_the_download_ends_and_the_last_after_it_was_verified(cache: Cache) -> None:
    cache.upstream.gate = asyncio.Event()
    assert (await cache.ask("GET", f"{PATH}/manifests/v1"))[0] == 200
    async with cache.http.get(cache.base + BLOB) as answer:
        first = await answer.content.readany()
        assert first
        assert LAYER.startswith(first)
        assert not cache.content.has(Digest.of(LAYER))
        cache.upstream.gate.set()
        assert first + await answer.content.read() == LAYER
    assert cache.content.has(Digest.of(LAYER))


async def test_many_who_want_the_same_blob_wait_for_one_download_even_if_the_first_leaves(cache: Cache) -> None:
    cache.upstream.gate = asyncio.Event()
    await cache.ask("GET", f"{PATH}/manifests/v1")
    async with cache.http.get(cache.base + BLOB) as answer:
        await answer.content.readany()
    others = [asyncio.create_task(cache.ask("GET", BLOB)) for _ in range(5)]
    ranged = asyncio.create_task(cache.ask("GET", BLOB, headers={"Range": "bytes=2900000-"}))
    await asyncio.sleep(0)
    cache.upstream.gate.set()
    assert {body for _, _, body in await asyncio.gather(*others)} == {LAYER}
    assert (await ranged)[2] == LAYER[2_900_000:]
    assert cache.upstream.asked["GET blob"] == 1


async def test_wrong_bytes_are_neither_kept_nor_passed_off_as_whole(cache: Cache) -> None:
    await cache.ask("GET", f"{PATH}/manifests/v1")
    cache.upstream.wrong = True
    with pytest.raises(aiohttp.ClientError):
        await cache.ask("GET", BLOB)
    assert not cache.content.has(Digest.of(LAYER))
    cache.upstream.wrong = False
    assert (await cache.ask("GET", BLOB))[2] == LAYER


async def test_a_download_that_broke_off_goes_on_where_it_ended(cache: Cache) -> None:
    await cache.ask("GET", f"{PATH}/manifests/v1")
    cache.upstream.broken_off = True
    with pytest.raises(aiohttp.ClientError):
        await cache.ask("GET", BLOB)
    cache.upstream.broken_off = False
    assert (await cache.ask("GET", BLOB))[2] == LAYER
    assert cache.upstream.ranges[-1].startswith("bytes=")
    assert cache.upstream.ranges[-1] != "bytes=0-"
    assert cache.content.uploads() == []


async def test_a_tag_is_asked_for_with_head_and_fetched_only_when_it_moved(cache: Cache) -> None:
    cache.refuse_to_be_fresh()
    for _ in range(3):
        await cache.ask("GET", f"{PATH}/manifests/v1")
    assert cache.upstream.asked == {"HEAD manifest": 3, "GET manifest": 1}
    await cache.upstream.world.push_image("library/app", "v1", b"newer")
    assert (await cache.ask("GET", f"{PATH}/manifests/v1"))[2] == image(b"newer")
    assert [change.digest for change in cache.registry.repositories.history("hub/library/app", "v1")] == [
        Digest.of(image(b"newer")),
        Digest.of(image(LAYER)),
    ]


async def test_what_is_not_there_is_not_asked_for_again_and_again(cache: Cache) -> None:
    asked: list[dict[str, int]] = []
    for _ in range(3):
        status, _, body = await cache.ask("GET", f"{PATH}/manifests/v9")
        assert (status, code(body)) == (404, "MANIFEST_UNKNOWN")
        status, _, body = await cache.ask("GET", f"{PATH}/blobs/{Digest.of(b'nobody names it')}")
        assert (status, code(body)) == (404, "BLOB_UNKNOWN")
        asked.append(dict(cache.upstream.asked))
    assert asked[0] == asked[1] == asked[2]
    assert cache.upstream.asked["GET blob"] == 0


async def test_without_upstream_what_is_here_is_served_and_the_rest_is_a_sentence(cache: Cache) -> None:
    cache.refuse_to_be_fresh()
    await cache.ask("GET", f"{PATH}/manifests/v1")
    await cache.ask("GET", BLOB)
    cache.upstream.down = True
    assert (await cache.ask("GET", f"{PATH}/manifests/v1"))[2] == image(LAYER)
    assert (await cache.ask("GET", BLOB))[2] == LAYER
    status, _, body = await cache.ask("GET", f"{PATH}/tags/list")
    assert (status, body) == (200, b'{"name": "hub/library/app", "tags": ["v1"]}')
    assert (await cache.ask("GET", f"{PATH}/manifests/v2"))[0] == 503
    assert (await cache.ask("GET", f"{PATH}/blobs/{Digest.of(b'{}')}"))[0] == 503
    cache.upstream.down = False
    assert (await cache.ask("GET", f"{PATH}/blobs/{Digest.of(b'{}')}"))[2] == b"{}"


async def test_an_immutable_tag_of_a_cache_stays_what_it_was(cache: Cache) -> None:
    cache.refuse_to_be_fresh()
    cache.registry.repositories.set_tag_rule(TagRule("hub/**", "v*"), present=True)
    await cache.ask("GET", f"{PATH}/manifests/v1")
    await cache.upstream.world.push_image("library/app", "v1", b"newer")
    assert (await cache.ask("GET", f"{PATH}/manifests/v1"))[2] == image(LAYER)


async def test_nobody_pushes_to_a_cache_and_a_head_fetches_nothing(cache: Cache) -> None:
    status, _, body = await cache.ask("POST", f"{PATH}/blobs/uploads/")
    assert (status, code(body)) == (405, "UNSUPPORTED")
    assert (await cache.put("hub/library/app", "v2", image()))[0] == 405
    await cache.ask("GET", f"{PATH}/manifests/v1")
    status, headers, _ = await cache.ask("HEAD", BLOB)
    assert (status, headers["content-length"]) == (200, str(len(LAYER)))
    assert cache.upstream.asked["GET blob"] == 0


async def test_a_client_that_takes_us_for_a_mirror_says_of_which_registry_or_means_the_default(cache: Cache) -> None:
    host = cache.upstream.world.base.removeprefix("http://")
    path = "/v2/library/app/manifests/v1"
    assert (await cache.ask("GET", path))[0] == 404
    assert (await cache.ask("GET", f"{path}?ns={host}"))[2] == image(LAYER)
    assert (await cache.ask("GET", f"{path}?ns=elsewhere.example"))[0] == 404
    cache.registry.cached.set_rule(UpstreamRule("hub", host, default=True), present=True)
    assert (await cache.ask("GET", path))[2] == image(LAYER)
    assert (await cache.ask("GET", f"/v2/library/app/blobs/{Digest.of(LAYER)}"))[2] == LAYER


async def test_a_collection_keeps_what_cached_manifests_name(cache: Cache) -> None:
    await cache.ask("GET", f"{PATH}/manifests/v1")
    await cache.ask("GET", BLOB)
    cache.database.execute("UPDATE registry_blob SET moment = 0")
    verdicts = {v.digest: v.reason for v in sweep(cache.content, [cache.registry.repositories]).kept}
    assert verdicts[Digest.of(LAYER)] == "part of hub/library/app:v1"
    assert (await cache.ask("GET", BLOB))[2] == LAYER


@pytest.mark.clients
async def test_skopeo_pulls_through(cache: Cache, tmp_path: Path) -> None:
    host = cache.base.removeprefix("http://")
    await run("skopeo", "copy", "--src-tls-verify=false", f"docker://{host}/hub/library/app:v1", f"dir:{tmp_path}/d")
    assert (tmp_path / "d" / Digest.of(LAYER).hex).read_bytes() == LAYER
    assert await layers_of(host, "hub/library/app:v1") == 1
