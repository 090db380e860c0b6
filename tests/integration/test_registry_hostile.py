"""What a hostile client may send: the registry refuses it in few words, keeps nothing of it, and serves the others."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.http.client import session
from kestrel.http.server import Limits, Server, Tcp
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import LIMIT, Index
from kestrel.registry import Registry, Settings

from .test_registry_server import World, code, image

PASSWD = "../" * 12 + "etc/passwd"


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    root = tmp_path / "root"
    root.mkdir()
    database = Database(root / "kestrel.db")
    content = Store(root, database)
    registry = Registry(content, database, Settings(idle_seconds=0.3))
    limits = Limits(head_seconds=0.5)
    async with Server(registry.handle, [Tcp()], limits=limits) as server, session() as http:
        yield World(server.addresses[0], http, registry, content, database)
    database.close()


async def raw(world: World, data: bytes, *, patience: float = 20.0) -> bytes:
    """Send bytes as they are, and return all that comes until the server closes; it has to."""
    host, _, port = world.base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(-1), patience)
    except (ConnectionResetError, BrokenPipeError):
        return b""
    finally:
        writer.close()


def answers(data: bytes) -> list[int]:
    return [int(part.split()[0]) for part in data.split(b"HTTP/1.1 ")[1:]]


def files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if "kestrel.db" not in path.name}


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/{PASSWD}",
        f"/v2/a/blobs/{PASSWD}",
        "/v2/a/blobs/sha256:" + "../" * 20 + "etc/passwd",
        "/v2/a/blobs/sha256:" + "..%2f" * 20 + "etc%2fpasswd",
        "/v2/a/blobs/sha256:%2e%2e%2f%2e%2e%2f" + "0" * 58,
        "/v2/a/manifests/../../../etc/passwd",
        "/v2/a/manifests/..%2f..%2fetc%2fpasswd",
        "/v2/%2e%2e/%2e%2e/manifests/latest",
        "/v2/a/../../b/manifests/latest",
        "/v2/a%00b/manifests/latest",
        "/v2/a/manifests/latest%00",
        "/v2/a/referrers/sha256:..",
        "/v2//manifests/latest",
        "/v2/" + "a/" * 200 + "manifests/latest",
        "/v2/A/manifests/latest",
        "/etc/passwd",
        "//v2/",
    ],
)
async def test_no_path_leads_out_of_the_store(world: World, path: str) -> None:
    await world.push_image("a", "latest")
    before = files(world.content.root.parent)
    for method in ("GET", "PUT", "DELETE", "POST", "PATCH"):
        said = await raw(
            world, f"{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert all(400 <= status < 500 for status in answers(said)), said
        assert b"root:" not in said
    assert files(world.content.root.parent) == before


@pytest.mark.parametrize(
    "identity", ["../../escape", "..", ".", "a" * 300, "0" * 32 + "-" + "0" * 16 + "-sha256", "%00"]
)
async def test_no_upload_has_a_name_of_the_clients_choice(world: World, identity: str) -> None:
    before = files(world.content.root.parent)
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        path = f"/v2/a/blobs/uploads/{identity.replace('/', '%2f')}?digest={Digest.of(b'')}"
        said = await raw(
            world, f"{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert all(400 <= status < 500 for status in answers(said)), said
    assert files(world.content.root.parent) == before


SMUGGLED = b"DELETE /v2/a/manifests/latest HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 0\r\nContent-Length: 5\r\n",
        b"Content-Length: 0, 5\r\n",
        b"Content-Length: +0\r\n",
        b"Content-Length: 0x0\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length : 0\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b" X: folded\r\nContent-Length: 0\r\n",
        b"X\x00Y: z\r\n",
    ],
)
async def test_a_second_request_is_not_smuggled_in_the_first(world: World, head: bytes) -> None:
    """RFC 9112 section 6.3: who cannot say where a body ends closes the connection."""
    digest, _ = await world.push_image("a", "latest")
    said = await raw(world, b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n0\r\n\r\n" + SMUGGLED)
    assert 202 not in answers(said)[1:], said
    assert (await world.ask("HEAD", "/v2/a/manifests/latest"))[1].get("docker-content-digest") == digest


@pytest.mark.parametrize(
    "chunk", [b"fffffffffffffffff\r\n", b"-1\r\n", b"5;" + b"x" * 100_000 + b"\r\n", b"zz\r\n", b"3\r\nabcdef\r\n"]
)
async def test_chunks_that_lie_about_their_size_end_the_connection(world: World, chunk: bytes) -> None:
    said = await raw(
        world,
        b"PUT /v2/a/manifests/latest HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + SMUGGLED,
    )
    assert all(400 <= status < 600 for status in answers(said)), said
    assert len(answers(said)) <= 1


async def test_slow_clients_are_told_to_hurry_and_what_they_sent_can_be_gone_on_with(world: World) -> None:
    said = await raw(world, b"GET /v2/ HTTP/1.1\r\nHost: h\r\nX-Slow")
    assert answers(said) in ([], [400], [408])
    where = (await world.ask("POST", "/v2/a/blobs/uploads/"))[1]["location"]
    head = f"PATCH {where} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n".encode()
    assert answers(await raw(world, head + b"only some")) == [408]
    status, headers, _ = await world.ask("GET", where)
    assert (status, headers["range"]) == (204, "0-8")


async def test_hundreds_of_idle_connections_do_not_keep_others_waiting(world: World) -> None:
    host, _, port = world.base.removeprefix("http://").partition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
    try:
        for _, writer in idle:
            writer.write(b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n")
        assert (await asyncio.wait_for(world.ask("GET", "/v2/"), 5))[0] == 200
        await asyncio.wait_for(asyncio.gather(*(reader.read(-1) for reader, _ in idle), return_exceptions=True), 10)
    finally:
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b'{"schemaVersion":2,"config":' * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"schemaVersion":' + b"9" * 100_000 + b"}",
        b'{"schemaVersion":2,"layers":[NaN]}',
        b"\xff\xfe" * 1000,
        b"",
        b"null",
        b'"text"',
        b'{"schemaVersion":2,"config":{},"layers":{}}',
        image().replace(b'"size":2', b'"size":-1'),
        image().replace(b'"size":2', b'"size":99999999999999999999'),
        image().replace(b"sha256:", b"sha256:../../"),
        image()[:-1] + b',"manifests":[]}',
    ],
)
async def test_what_is_no_manifest_is_refused_in_a_sentence(world: World, data: bytes) -> None:
    await world.push_image("a", "v1")
    for kind in (media_types.OCI_MANIFEST, media_types.OCI_INDEX, "application/json", "a/b; q=" + "x" * 1000):
        status, _, body = await world.put("a", "bad", data, kind)
        assert (status, code(body)) == (400, "MANIFEST_INVALID"), body
    assert (await world.ask("GET", "/v2/a/tags/list"))[2] == b'{"name": "a", "tags": ["v1"]}'


async def test_an_index_with_tens_of_thousands_of_entries_is_answered_soon(world: World) -> None:
    entries = [
        Descriptor(media_type=media_types.OCI_MANIFEST, digest=Digest.of(b"%d" % number), size=number)
        for number in range(20_000)
    ]
    data = Index.of(entries).encode()
    assert len(data) < LIMIT
    status, _, body = await world.put("a", "many", data, media_types.OCI_INDEX)
    assert (status, code(body)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert len(body) < 100_000
    same = Index.of([entries[0]] * 20_000).encode()
    assert (await world.put("a", "many", same, media_types.OCI_INDEX))[0] == 404


async def test_indexes_within_indexes_are_kept_and_linked_however_deep(world: World) -> None:
    digest, data = await world.push_image("a", "v1")
    child = Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest, size=len(data))
    for _ in range(200):
        data = Index.of([child]).encode()
        child = Descriptor.of(media_types.OCI_INDEX, data)
        assert (await world.put("a", child.digest, data, media_types.OCI_INDEX))[0] == 201
    world.registry.repositories.link("b", "deep", child.digest)
    assert (await world.ask("GET", f"/v2/b/manifests/{digest}"))[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_not_read_to_its_end(world: World, chunked: bool) -> None:
    size = 40 * LIMIT

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // (1 << 20)):
            yield bytes(1 << 20)

    headers = {"Content-Type": media_types.OCI_MANIFEST}
    if not chunked:
        headers["Content-Length"] = str(size)
    try:
        status, _, _ = await world.ask("PUT", "/v2/a/manifests/latest", data=body(), headers=headers)
    except OSError:
        return  # it was cut off, which is an answer too
    assert status == 413


async def test_long_lines_and_headers_and_queries_are_refused(world: World) -> None:
    for line in (
        b"GET /v2/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ):
        said = answers(await raw(world, line))
        assert said in ([], [400], [414], [431])
    assert (await world.ask("GET", "/v2/a/tags/list?n=" + "9" * 5000))[0] in (200, 404)
    for n in ("-1", "1e9", "٣", "0x10"):
        assert (await world.ask("GET", f"/v2/_catalog?n={n}"))[0] == 400
    many = "&".join(f"tag=t{number}" for number in range(1000))
    assert (await world.ask("PUT", f"/v2/a/manifests/{Digest.of(b'x')}?{many}", data=b"x"))[0] == 414


async def test_ranges_that_ask_for_everything_many_times_get_it_once(world: World) -> None:
    data = os.urandom(100_000)
    digest = await world.push_blob("a", data)
    many = "bytes=" + ",".join(["0-"] * 1000)
    status, _, body = await world.ask("GET", f"/v2/a/blobs/{digest}", headers={"Range": many})
    assert (status, body) == (200, data)
    huge = await world.ask("GET", f"/v2/a/blobs/{digest}", headers={"Range": f"bytes={'9' * 4000}-"})
    assert huge[0] == 416


async def test_a_compressed_body_is_what_was_sent_and_no_bomb(world: World) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    headers = {"Content-Encoding": "gzip"}
    path = f"/v2/a/blobs/uploads/?digest={Digest.of(bomb)}"
    assert (await world.ask("POST", path, data=bomb, headers=headers))[0] == 201
    assert (await world.ask("GET", f"/v2/a/blobs/{Digest.of(bomb)}"))[2] == bomb
    status, _, body = await world.ask("PUT", "/v2/a/manifests/v1", data=gzip.compress(image()), headers=headers)
    assert (status, code(body)) == (400, "MANIFEST_INVALID")


async def test_a_wrong_digest_or_size_leaves_nothing_behind(world: World) -> None:
    before = files(world.content.root)
    for digest in (Digest.of(b"other"), "sha256:" + "0" * 64, "sha512:" + "0" * 128, "md5:" + "0" * 32, "sha256:x", ""):
        status, _, body = await world.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", data=b"data")
        assert (status, code(body)) == (400, "DIGEST_INVALID")
    assert files(world.content.root) == before
    assert json.loads((await world.ask("GET", "/v2/_catalog"))[2]) == {"repositories": []}


async def test_the_token_server_takes_no_large_forms_and_no_crlf(world: World) -> None:
    world.registry.accounts.grant("anonymous", "a", "pull")
    assert (await world.ask("POST", "/token", data=b"x=" + b"y" * 100_000))[0] == 413
    assert (await world.ask("POST", "/token", data=b"&".join(b"a%d=1" % n for n in range(1000))))[0] == 400
    scopes = "&".join(f"scope=repository:a{number}:pull" for number in range(500))
    assert (await world.ask("GET", f"/token?{scopes}"))[0] == 200
    said = await raw(world, b'GET /v2/b/manifests/x HTTP/1.1\r\nHost: evil"\r\nConnection: close\r\n\r\n')
    assert answers(said) in ([401], [400])
    assert b'realm="http://evil/token"' in said or answers(said) == [400]


@pytest.mark.parametrize("accounts", [False, True])
@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /v2/_catalog?last=%ff",
        b"GET /v2/a/tags/list?last=%ed%a0%80&n=%ff",
        b"GET /v2/a/manifests/v1?ns=%ff",
        b"GET /v2/a/referrers/sha256:" + b"0" * 64 + b"?artifactType=%ff&last=%ff",
        b"GET /token?scope=%ff&account=%ff",
        b"POST /v2/a/blobs/uploads/?mount=%ff&from=%ff",
        b"POST /v2/a/blobs/uploads/?digest=sha256:%ff",
        b"PUT /v2/a/manifests/v1",
        b"DELETE /v2/a/manifests/%ff",
        b"GET /v2/%ff/manifests/v1",
        b"GET /v2/",
    ],
)
async def test_bytes_that_are_no_text_are_no_bug(world: World, request_line: bytes, *, accounts: bool) -> None:
    if accounts:
        world.registry.accounts.grant("anonymous", "**", "pull,push,delete")
    fields = [b"Authorization: Basic \xff\xfe", b"Authorization: Bearer \xff.\xff.\xff", b"Authorization: \xff"]
    fields += [b"Content-Type: \xff", b"If-Match: \xff", b"If-None-Match: \xff", b"Range: bytes=\xff", b"X: y"]
    for field in fields:
        head = b" HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\nContent-Length: 0\r\n"
        said = answers(await raw(world, request_line + head + field + b"\r\n\r\n"))
        assert said == [] or said[0] < 500, (field, said)
