"""The registry over HTTP, as the distribution spec describes it, on real sockets, files and SQLite."""

import asyncio
import io
import json
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition
from kestrel.content import Store, sweep
from kestrel.http.client import session
from kestrel.http.server import Server, Tcp
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index, Manifest
from kestrel.registry import Registry, Settings

EMPTY = b"{}"


@dataclass
class World:
    base: str
    http: aiohttp.ClientSession
    registry: Registry
    content: Store
    database: Database

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, "dict[str, str]", bytes]:
        url = path if "://" in path else self.base + path
        if isinstance(more.get("data"), bytes):
            more["data"] = io.BytesIO(more["data"])  # aiohttp warns about large bytes
        async with self.http.request(method, url, **more) as answer:
            return answer.status, {key.lower(): value for key, value in answer.headers.items()}, await answer.read()

    async def push_blob(self, name: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        status, _, body = await self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data=data)
        assert status == 201, body
        return digest

    async def push_image(self, name: str, tag: str, layer: bytes = b"layer") -> tuple[Digest, bytes]:
        await self.push_blob(name, EMPTY)
        await self.push_blob(name, layer)
        data = image(layer)
        status, _, body = await self.put(name, tag, data)
        assert status == 201, body
        return Digest.of(data), data

    async def put(
        self, name: str, version: str, data: bytes, kind: str = media_types.OCI_MANIFEST
    ) -> tuple[int, "dict[str, str]", bytes]:
        return await self.ask("PUT", f"/v2/{name}/manifests/{version}", data=data, headers={"Content-Type": kind})


def image(layer: bytes = b"layer", **more: Any) -> bytes:
    config = Descriptor.of(media_types.OCI_CONFIG, EMPTY)
    return Manifest.of(config, [Descriptor.of(media_types.OCI_LAYER, layer)], **more).encode()


def code(body: bytes) -> str:
    [entry] = json.loads(body)["errors"]
    assert entry["message"]
    return str(entry["code"])


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database(tmp_path / "kestrel.db")
    content = Store(tmp_path, database)
    registry = Registry(content, database, Settings(idle_seconds=5))
    async with Server(registry.handle, [Tcp()]) as server, session() as http:
        yield World(server.addresses[0], http, registry, content, database)
    database.close()


async def test_the_base_says_that_this_is_a_registry(world: World) -> None:
    for path in ("/v2/", "/v2"):
        status, headers, body = await world.ask("GET", path)
        assert (status, body, headers["docker-distribution-api-version"]) == (200, b"{}", "registry/2.0")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_blob_pushed_in_one_post_is_served_with_digest_etag_and_ranges(world: World, algorithm: str) -> None:
    data = os.urandom(300_000)
    digest = Digest.of(data, algorithm)
    status, headers, _ = await world.ask("POST", f"/v2/a/b/blobs/uploads/?digest={digest}", data=data)
    assert (status, headers["location"]) == (201, f"/v2/a/b/blobs/{digest}")
    status, headers, body = await world.ask("GET", headers["location"])
    assert (status, body) == (200, data)
    assert headers["docker-content-digest"] == digest
    assert headers["etag"] == f'"{digest}"'
    assert headers["content-type"] == "application/octet-stream"
    assert "content-encoding" not in headers
    status, headers, body = await world.ask("HEAD", f"/v2/a/b/blobs/{digest}")
    assert (status, headers["content-length"], body) == (200, "300000", b"")
    for text, part in (("bytes=10-20", data[10:21]), ("bytes=100000-", data[100_000:]), ("bytes=-5", data[-5:])):
        status, headers, body = await world.ask("GET", f"/v2/a/b/blobs/{digest}", headers={"Range": text})
        assert (status, body) == (206, part)
        assert headers["content-range"].endswith("/300000")
    status, headers, _ = await world.ask("GET", f"/v2/a/b/blobs/{digest}", headers={"Range": "bytes=300000-"})
    assert (status, headers["content-range"]) == (416, "bytes */300000")
    status, _, body = await world.ask("GET", f"/v2/a/b/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'})
    assert (status, body) == (304, b"")
    stale = {"Range": "bytes=1-2", "If-Range": '"other"'}
    assert (await world.ask("GET", f"/v2/a/b/blobs/{digest}", headers=stale))[0] == 200


async def test_chunks_in_order_make_a_blob_and_one_out_of_order_keeps_the_session(world: World) -> None:
    data = os.urandom(3000)
    status, headers, _ = await world.ask("POST", "/v2/a/blobs/uploads/")
    assert (status, headers["range"]) == (202, "0-0")
    where = headers["location"]
    status, headers, _ = await world.ask("PATCH", where, data=data[:1000], headers={"Content-Range": "0-999"})
    assert (status, headers["range"], headers["location"]) == (202, "0-999", where)
    for method in ("PATCH", f"PUT?digest={Digest.of(data)}"):
        verb, _, query = method.partition("?")
        status, headers, body = await world.ask(
            verb, f"{where}?{query}", data=data[2000:], headers={"Content-Range": "2000-2999"}
        )
        assert (status, headers["range"], code(body)) == (416, "0-999", "BLOB_UPLOAD_INVALID")
    status, headers, _ = await world.ask("GET", where)
    assert (status, headers["range"]) == (204, "0-999")
    assert (await world.ask("PATCH", where, data=data[1000:2000], headers={"Content-Range": "1000-1999"}))[0] == 202
    status, headers, _ = await world.ask(
        "PUT", f"{where}?digest={Digest.of(data)}", data=data[2000:], headers={"Content-Range": "2000-2999"}
    )
    assert status == 201
    assert (await world.ask("GET", headers["location"]))[2] == data
    assert code((await world.ask("GET", where))[2]) == "BLOB_UPLOAD_UNKNOWN"


async def test_a_streamed_upload_of_unknown_length_and_a_put_with_everything(world: World) -> None:
    data = os.urandom(2_500_000)

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    for verb in ("PATCH", "PUT"):
        where = (await world.ask("POST", f"/v2/{verb.lower()}/blobs/uploads/"))[1]["location"]
        if verb == "PATCH":
            status, headers, _ = await world.ask("PATCH", where, data=stream())
            assert (status, headers["range"]) == (202, f"0-{len(data) - 1}")
            status, headers, _ = await world.ask("PUT", f"{where}?digest={Digest.of(data)}")
        else:
            status, headers, _ = await world.ask("PUT", f"{where}?digest={Digest.of(data)}", data=stream())
        assert status == 201
        assert (await world.ask("GET", headers["location"]))[2] == data


async def test_an_upload_belongs_to_its_repository_and_can_be_cancelled(world: World) -> None:
    where = (await world.ask("POST", "/v2/mine/blobs/uploads/"))[1]["location"]
    elsewhere = where.replace("/mine/", "/yours/")
    for verb in ("GET", "PATCH", "DELETE"):
        status, _, body = await world.ask(verb, elsewhere)
        assert (status, code(body)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert (await world.ask("DELETE", where))[0] == 204
    assert (await world.ask("GET", where))[0] == 404
    assert (await world.ask("GET", "/v2/mine/blobs/uploads/../../../etc/passwd"))[0] in (404, 405)


async def test_two_writers_of_one_upload_do_not_mix_their_bytes(world: World) -> None:
    where = (await world.ask("POST", "/v2/a/blobs/uploads/"))[1]["location"]
    go = asyncio.Event()
    held = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 10
        held.set()
        await go.wait()

    first = asyncio.create_task(world.ask("PATCH", where, data=slow()))
    await held.wait()
    await asyncio.sleep(0.05)
    status, _, body = await world.ask("PATCH", where, data=b"y")
    assert (status, code(body)) == (409, "BLOB_UPLOAD_INVALID")
    go.set()
    assert (await first)[1]["range"] == "0-9"


async def test_a_broken_off_chunk_keeps_what_came_and_is_continued(world: World) -> None:
    data = os.urandom(5000)
    where = (await world.ask("POST", "/v2/a/blobs/uploads/"))[1]["location"]
    port = int(world.base.rsplit(":", 1)[1])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"PATCH {where} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n".encode() + data[:2000])
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()
    for _ in range(100):
        status, headers, _ = await world.ask("GET", where)
        if status == 204:
            break
        await asyncio.sleep(0.02)
    assert headers["range"] == "0-1999"
    status, _, _ = await world.ask(
        "PUT", f"{where}?digest={Digest.of(data)}", data=data[2000:], headers={"Content-Range": "2000-4999"}
    )
    assert status == 201


@pytest.mark.parametrize(
    "digest", ["sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense", "", "sha256:" + "A" * 64]
)
async def test_a_bad_digest_is_refused_everywhere(world: World, digest: str) -> None:
    where = (await world.ask("POST", "/v2/a/blobs/uploads/"))[1]["location"]
    status, _, body = await world.ask("PUT", f"{where}?digest={digest}", data=b"x")
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    status, _, body = await world.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", data=b"x")
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    if digest:
        assert (await world.ask("GET", f"/v2/a/blobs/{digest}"))[0] == 400


async def test_wrong_bytes_are_refused_and_leave_nothing(world: World) -> None:
    digest = Digest.of(b"right")
    status, _, body = await world.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", data=b"wrong")
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    where = (await world.ask("POST", "/v2/a/blobs/uploads/"))[1]["location"]
    assert (await world.ask("PUT", f"{where}?digest={digest}", data=b"wrong"))[0] == 400
    assert world.content.uploads() == [] or (await world.ask("GET", where))[0] == 404
    assert not world.content.has(digest)
    assert not world.content.has(Digest.of(b"wrong"))


async def test_a_blob_is_seen_only_where_it_was_pushed_or_mounted(world: World) -> None:
    digest = await world.push_blob("one", b"secret")
    world.content.put(b"an image of the local store")
    private = Digest.of(b"an image of the local store")
    for name, blob in (("two", digest), ("one", private)):
        status, _, body = await world.ask("GET", f"/v2/{name}/blobs/{blob}")
        assert (status, code(body)) == (404, "BLOB_UNKNOWN")
    assert (await world.ask("POST", f"/v2/two/blobs/uploads/?mount={digest}&from=three"))[0] == 202
    assert (await world.ask("POST", f"/v2/two/blobs/uploads/?mount={private}"))[0] == 202
    assert (await world.ask("POST", f"/v2/two/blobs/uploads/?mount={digest}&from=one"))[0] == 201
    assert (await world.ask("POST", f"/v2/four/blobs/uploads/?mount={digest}"))[0] == 201
    assert (await world.ask("GET", f"/v2/two/blobs/{digest}"))[2] == b"secret"
    assert (await world.ask("DELETE", f"/v2/one/blobs/{digest}"))[0] == 202
    assert (await world.ask("GET", f"/v2/one/blobs/{digest}"))[0] == 404
    assert (await world.ask("DELETE", f"/v2/one/blobs/{digest}"))[0] == 404
    assert (await world.ask("GET", f"/v2/two/blobs/{digest}"))[0] == 200


async def test_a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest(world: World) -> None:
    await world.push_blob("a", EMPTY)
    await world.push_blob("a", b"layer")
    data = json.dumps(json.loads(image(annotations={"x": "y"})) | {"unknown": [1, 2]}, indent=3).encode()
    status, headers, _ = await world.put("a", "v1", data)
    digest = Digest.of(data)
    assert (status, headers["docker-content-digest"], headers["location"]) == (201, digest, f"/v2/a/manifests/{digest}")
    for version in ("v1", digest):
        for _ in range(2):  # from the tables, then from memory
            status, headers, body = await world.ask("GET", f"/v2/a/manifests/{version}")
            assert (status, body) == (200, data)
            assert headers["content-type"] == media_types.OCI_MANIFEST
            assert headers["docker-content-digest"] == digest
            status, headers, body = await world.ask("HEAD", f"/v2/a/manifests/{version}")
            assert (status, headers["content-length"], body) == (200, str(len(data)), b"")
    condition = {"If-None-Match": f'"{digest}"'}
    assert (await world.ask("GET", "/v2/a/manifests/v1", headers=condition))[0] == 304


async def test_a_tag_that_moves_is_seen_to_move_at_once(world: World) -> None:
    for number in range(5):
        digest, _ = await world.push_image("a", "v1", b"layer %d" % number)
        assert (await world.ask("GET", "/v2/a/manifests/v1"))[1]["docker-content-digest"] == digest


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (image(), media_types.OCI_INDEX),
        (image(), media_types.DOCKER_MANIFEST),
        (b'{"schemaVersion": 2, "mediaType": "%s"' % media_types.OCI_MANIFEST.encode(), media_types.OCI_MANIFEST),
        (json.dumps(json.loads(image()) | {"manifests": []}).encode(), media_types.OCI_MANIFEST),
        (json.dumps(json.loads(image()) | {"Layers": []}).encode(), media_types.OCI_MANIFEST),
        (b"[]", media_types.OCI_MANIFEST),
        (b"", media_types.OCI_MANIFEST),
        (image(), "text/html"),
        (b"[" * 100_000, media_types.OCI_MANIFEST),
    ],
)
async def test_what_is_not_what_it_says_is_refused(world: World, data: bytes, kind: str) -> None:
    await world.push_blob("a", EMPTY)
    await world.push_blob("a", b"layer")
    status, _, body = await world.put("a", "v1", data, kind)
    assert (status, code(body)) == (400, "MANIFEST_INVALID")
    assert (await world.ask("GET", "/v2/a/manifests/v1"))[0] == 404


async def test_a_manifest_needs_its_children_in_its_own_repository(world: World) -> None:
    await world.push_blob("other", b"layer")
    await world.push_blob("a", EMPTY)
    status, _, body = await world.put("a", "v1", image())
    assert (status, code(body)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert json.loads(body)["errors"][0]["detail"] == [{"digest": Digest.of(b"layer")}]
    index = Index.of([Descriptor.of(media_types.OCI_MANIFEST, image())]).encode()
    status, _, body = await world.put("a", "v2", index, media_types.OCI_INDEX)
    assert (status, code(body)) == (404, "MANIFEST_BLOB_UNKNOWN")
    await world.push_image("a", "v1")
    assert (await world.put("a", "v2", index, media_types.OCI_INDEX))[0] == 201


async def test_a_layer_that_others_distribute_need_not_be_here(world: World) -> None:
    await world.push_blob("a", EMPTY)
    layer = Descriptor.of(media_types.DOCKER_FOREIGN_LAYER_GZIP, b"far away")
    data = Manifest.of(Descriptor.of(media_types.OCI_CONFIG, EMPTY), [layer]).encode()
    assert (await world.put("a", "v1", data))[0] == 201


async def test_a_big_manifest_is_taken_and_a_bigger_one_is_too_large(world: World) -> None:
    await world.push_blob("a", EMPTY)
    await world.push_blob("a", b"layer")
    assert (await world.put("a", "v1", image(annotations={"x": "y" * 4_000_000})))[0] == 201
    status, _, body = await world.put("a", "v2", image(annotations={"x": "y" * 4_200_000}))
    assert (status, code(body)) == (413, "SIZE_INVALID")


async def test_a_manifest_put_by_another_digest_is_refused_and_one_put_can_set_many_tags(world: World) -> None:
    digest, data = await world.push_image("a", "v1")
    status, _, body = await world.put("a", Digest.of(b"other"), data)
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    tags = [f"t{number}" for number in range(12)]
    query = "&".join(f"tag={tag}" for tag in tags)
    async with world.http.put(
        f"{world.base}/v2/a/manifests/{digest}?{query}", data=data, headers={"Content-Type": media_types.OCI_MANIFEST}
    ) as answer:
        assert answer.status == 201
        assert answer.headers.getall("OCI-Tag") == tags
    assert world.registry.repositories.tags("a") == sorted([*tags, "v1"])
    many = "&".join(f"tag=m{number}" for number in range(65))
    assert (await world.put("a", f"{digest}?{many}", data))[0] == 414
    status, _, body = await world.put("a", f"{digest}?tag=-bad", data)
    assert (status, code(body)) == (400, "MANIFEST_INVALID")


async def test_deleting_a_tag_leaves_its_siblings_and_deleting_the_digest_takes_all(world: World) -> None:
    digest, data = await world.push_image("a", "v1")
    await world.put("a", "v2", data)
    assert (await world.ask("GET", "/v2/a/manifests/v1"))[0] == 200
    assert (await world.ask("DELETE", "/v2/a/manifests/v1"))[0] == 202
    assert (await world.ask("GET", "/v2/a/manifests/v1"))[0] == 404
    assert (await world.ask("GET", "/v2/a/manifests/v2"))[0] == 200
    assert (await world.ask("DELETE", f"/v2/a/manifests/{digest}"))[0] == 202
    for version in ("v2", digest):
        assert code((await world.ask("GET", f"/v2/a/manifests/{version}"))[2]) == "MANIFEST_UNKNOWN"
    assert (await world.ask("DELETE", f"/v2/a/manifests/{digest}"))[0] == 404
    await world.push_image("a", "v1")
    assert (await world.ask("GET", "/v2/a/manifests/v1"))[0] == 200


async def test_tags_are_listed_in_order_page_by_page(world: World) -> None:
    _, data = await world.push_image("a/b", "b")
    for tag in ("a", "B", "_x", "c-1"):
        await world.put("a/b", tag, data)
    status, headers, body = await world.ask("GET", "/v2/a/b/tags/list")
    assert (status, json.loads(body)) == (200, {"name": "a/b", "tags": ["B", "_x", "a", "b", "c-1"]})
    assert "link" not in headers
    found: list[str] = []
    path = "/v2/a/b/tags/list?n=2"
    while path:
        _, headers, body = await world.ask("GET", path)
        found += json.loads(body)["tags"]
        path = headers.get("link", "").partition("<")[2].partition(">")[0]
    assert found == ["B", "_x", "a", "b", "c-1"]
    _, headers, body = await world.ask("GET", "/v2/a/b/tags/list?n=0")
    assert json.loads(body)["tags"] == []
    assert "link" not in headers
    assert json.loads((await world.ask("GET", "/v2/a/b/tags/list?last=a"))[2])["tags"] == ["b", "c-1"]
    assert code((await world.ask("GET", "/v2/none/tags/list"))[2]) == "NAME_UNKNOWN"
    assert (await world.ask("GET", "/v2/a/b/tags/list?n=x"))[0] == 400


async def test_the_catalog_lists_what_holds_a_manifest(world: World) -> None:
    await world.push_blob("only/blobs", b"x")
    for name in ("b", "a/z", "a/b"):
        await world.push_image(name, "v1")
    assert json.loads((await world.ask("GET", "/v2/_catalog"))[2]) == {"repositories": ["a/b", "a/z", "b"]}
    _, headers, body = await world.ask("GET", "/v2/_catalog?n=1")
    assert json.loads(body) == {"repositories": ["a/b"]}
    assert headers["link"] == '</v2/_catalog?n=1&last=a%2Fb>; rel="next"'


async def test_referrers_are_found_filtered_paged_and_merged_with_the_fallback_tag(world: World) -> None:
    digest, data = await world.push_image("a", "v1")
    subject = Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest, size=len(data))
    status, headers, body = await world.ask("GET", f"/v2/nothing/referrers/{digest}")
    assert (status, headers["content-type"]) == (200, media_types.OCI_INDEX)
    assert json.loads(body)["manifests"] == []
    wanted = set()
    for kind in ("application/x.sbom", "application/x.signature"):
        made = image(subject=subject, artifact_type=kind, annotations={"kind": kind})
        status, headers, _ = await world.put("a", Digest.of(made), made)
        assert (status, headers["oci-subject"]) == (201, digest)
        wanted.add(Digest.of(made))
    old = image(annotations={"old": "client"})
    await world.put("a", Digest.of(old), old)
    fallback = Index.of([Descriptor.of(media_types.OCI_MANIFEST, old)]).encode()
    await world.put("a", f"sha256-{digest.hex}", fallback, media_types.OCI_INDEX)
    found = json.loads((await world.ask("GET", f"/v2/a/referrers/{digest}"))[2])["manifests"]
    assert {entry["digest"] for entry in found} == wanted | {Digest.of(old)}
    _, headers, body = await world.ask("GET", f"/v2/a/referrers/{digest}?artifactType=application/x.sbom")
    [entry] = json.loads(body)["manifests"]
    assert (entry["artifactType"], entry["annotations"]) == ("application/x.sbom", {"kind": "application/x.sbom"})
    assert headers["oci-filters-applied"] == "artifactType"
    pages, path = 0, f"/v2/a/referrers/{digest}?n=1"
    while path:
        _, headers, body = await world.ask("GET", path)
        pages += len(json.loads(body)["manifests"])
        path = headers.get("link", "").partition("<")[2].partition(">")[0]
    assert pages == 3
    assert (await world.ask("GET", "/v2/a/referrers/nonsense"))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/v2/UPPER/manifests/x", 400, "NAME_INVALID"),
        ("GET", "/v2/a//b/manifests/x", 400, "NAME_INVALID"),
        ("GET", "/v2/a/../../etc/manifests/x", 400, "NAME_INVALID"),
        ("GET", f"/v2/{'a' * 256}/manifests/x", 400, "NAME_INVALID"),
        ("PUT", "/v2/a/manifests/-x", 400, "MANIFEST_INVALID"),
        ("PUT", f"/v2/a/manifests/{'x' * 129}", 400, "MANIFEST_INVALID"),
        ("POST", "/v2/a/manifests/x", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/a/tags/list", 405, "UNSUPPORTED"),
        ("GET", "/v3/", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a/unknown/x", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a/manifests/absent", 404, "MANIFEST_UNKNOWN"),
    ],
)
async def test_refusals_carry_the_specs_codes(world: World, method: str, path: str, status: int, error: str) -> None:
    from yarl import URL

    async with world.http.request(method, URL(world.base + path, encoded=True)) as answer:
        assert (answer.status, code(await answer.read())) == (status, error)
        assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
        assert answer.content_type == "application/json"


async def test_a_local_push_is_a_link_and_shows_only_what_the_image_has(world: World) -> None:
    data = image()
    for blob in (EMPTY, b"layer", b"not part of it", data):
        world.content.put(blob)
    before = world.content.usage()
    world.registry.repositories.link("team/app", "v1", Digest.of(data))
    assert world.content.usage() == before
    status, headers, body = await world.ask("GET", "/v2/team/app/manifests/v1")
    assert (status, headers["content-type"], body) == (200, media_types.OCI_MANIFEST, data)
    assert (await world.ask("GET", f"/v2/team/app/blobs/{Digest.of(b'layer')}"))[2] == b"layer"
    assert (await world.ask("GET", f"/v2/team/app/blobs/{Digest.of(b'not part of it')}"))[0] == 404


async def test_linking_an_index_leaves_out_platforms_that_are_not_here(world: World) -> None:
    here, absent = image(), image(b"other platform")
    index = Index.of([Descriptor.of(media_types.OCI_MANIFEST, each) for each in (here, absent)]).encode()
    for blob in (EMPTY, b"layer", here, index):
        world.content.put(blob)
    world.registry.repositories.link("app", "v1", Digest.of(index))
    assert (await world.ask("GET", "/v2/app/manifests/v1"))[2] == index
    assert (await world.ask("GET", f"/v2/app/manifests/{Digest.of(here)}"))[0] == 200
    assert (await world.ask("GET", f"/v2/app/manifests/{Digest.of(absent)}"))[0] == 404


async def test_an_image_whose_layers_are_gone_cannot_be_linked(world: World) -> None:
    data = image()
    world.content.put(EMPTY)
    world.content.put(data)
    with pytest.raises(FailedPrecondition, match="not in the store"):
        world.registry.repositories.link("app", "v1", Digest.of(data))
    assert not world.registry.repositories.exists("app")


async def test_a_collection_takes_what_no_repository_names_and_nothing_else(world: World) -> None:
    digest, _ = await world.push_image("a", "v1")
    await world.push_image("b", "v1", b"doomed")
    await world.push_blob("a", b"just pushed")
    other = world.content.put(b"nobody's")
    world.database.execute("UPDATE registry_blob SET moment = 0 WHERE digest != ?", (Digest.of(b"just pushed"),))
    await world.ask("DELETE", f"/v2/b/manifests/{Digest.of(image(b'doomed'))}")
    roots = world.registry.repositories
    kept = {verdict.digest: verdict.reason for verdict in sweep(world.content, [roots], dry_run=True).kept}
    assert kept[digest] == "manifest a:v1"
    assert kept[Digest.of(b"layer")] == "part of a:v1"
    assert kept[Digest.of(b"just pushed")].startswith("pushed to a ")
    assert kept[Digest.of(b"doomed")].startswith("deleted from b, can be restored for ")
    world.database.execute("UPDATE registry_gone SET moment = 0")
    gone = {verdict.digest for verdict in sweep(world.content, [roots]).removed}
    assert gone == {other, Digest.of(b"doomed"), Digest.of(image(b"doomed"))}
    assert (await world.ask("GET", f"/v2/a/manifests/{digest}"))[0] == 200
    assert (await world.ask("GET", f"/v2/a/blobs/{Digest.of(b'layer')}"))[2] == b"layer"
    status, _, body = await world.ask("HEAD", f"/v2/b/blobs/{Digest.of(b'doomed')}")
    assert (status, body) == (404, b"")
    world.registry.tidy()
    assert world.database.query("SELECT 1 FROM registry_blob WHERE digest = ?", (Digest.of(b"doomed"),)) == []


async def test_a_blob_a_client_was_told_exists_survives_until_its_manifest_comes(world: World) -> None:
    await world.push_blob("a", EMPTY)
    await world.push_blob("a", b"layer")
    world.database.execute("UPDATE registry_blob SET moment = 0")
    for blob in (EMPTY, b"layer"):
        assert (await world.ask("HEAD", f"/v2/a/blobs/{Digest.of(blob)}"))[0] == 200
    sweep(world.content, [world.registry.repositories])
    assert (await world.put("a", "v1", image()))[0] == 201


async def test_pushes_succeed_while_collections_run_all_the_time(world: World) -> None:
    stop = threading.Event()

    def collect() -> int:
        rounds = 0
        while not stop.is_set():
            sweep(world.content, [world.registry.repositories])
            rounds += 1
        return rounds

    collecting = asyncio.create_task(asyncio.to_thread(collect))
    try:
        for number in range(15):
            digest, data = await world.push_image(f"r{number % 3}", "latest", b"layer %d" % number)
            assert (await world.ask("GET", f"/v2/r{number % 3}/manifests/{digest}"))[2] == data
    finally:
        stop.set()
    assert await collecting > 0


async def test_a_manifest_from_memory_is_the_same_for_every_kind_of_connection(world: World) -> None:
    digest, data = await world.push_image("a", "v1")
    host, _, port = world.base.removeprefix("http://").partition(":")
    path = "/v2/a/manifests/v1"
    await world.ask("GET", path)  # from here on it is in memory

    async def said(request: str) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.encode())
        try:
            return await asyncio.wait_for(reader.read(-1), 10)
        finally:
            writer.close()

    one = await said(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    old = await said(f"GET {path} HTTP/1.0\r\n\r\n")
    more = await said(
        f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n" * 3 + f"HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    for answer in (one, old, *more.split(b"HTTP/1.1 ")[1:4]):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"200 OK" in head
        assert body == data
        for line in (f"Docker-Content-Digest: {digest}", f"Content-Length: {len(data)}", "Date: "):
            assert line.encode() in head
    assert b"Connection: close" in one
    assert more.split(b"HTTP/1.1 ")[4].endswith(b"\r\n\r\n")


async def test_what_was_pushed_is_there_after_a_restart(tmp_path: Path) -> None:
    for turn in range(2):
        database = Database(tmp_path / "kestrel.db")
        registry = Registry(Store(tmp_path, database), database)
        async with Server(registry.handle, [Tcp()]) as server, session() as http:
            world = World(server.addresses[0], http, registry, registry._content, database)
            if turn == 0:
                _, data = await world.push_image("a", "v1")
                where = (await world.ask("POST", "/v2/a/blobs/uploads/"))[1]["location"]
                await world.ask("PATCH", where, data=b"first half ")
            else:
                assert (await world.ask("GET", "/v2/a/manifests/v1"))[2] == data
                whole = b"first half second half"
                status, _, _ = await world.ask("PUT", f"{where}?digest={Digest.of(whole)}", data=whole[11:])
                assert status == 201
        database.close()
