"""Tags that move, that must not, and that are brought back: over HTTP, on real files and SQLite."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kestrel.base.db import Database
from kestrel.base.errors import NotFound
from kestrel.content import Store, sweep
from kestrel.http.client import session
from kestrel.http.server import Server, Tcp
from kestrel.oci import media_types
from kestrel.oci.digest import Digest
from kestrel.registry import Registry, Settings
from kestrel.registry.metadata import TagRule
from kestrel.registry.repositories import Immutable

from .test_registry_server import World, code, image


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database(tmp_path / "kestrel.db")
    content = Store(tmp_path, database)
    registry = Registry(content, database, Settings(unnamed_seconds=0))
    async with Server(registry.handle, [Tcp()]) as server, session() as http:
        yield World(server.addresses[0], http, registry, content, database)
    database.close()


async def put(world: World, layer: bytes, tag: str = "v1", **headers: str) -> tuple[int, bytes]:
    await world.push_blob("a", b"{}")
    await world.push_blob("a", layer)
    kind = {"Content-Type": media_types.OCI_MANIFEST}
    path = f"/v2/a/manifests/{tag}"
    status, _, body = await world.ask(
        "PUT", path, data=image(layer), headers={**kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
    )
    return status, body


async def test_a_tag_is_moved_only_if_it_is_what_the_client_saw(world: World) -> None:
    assert (await put(world, b"one", If_None_Match="*"))[0] == 201
    status, body = await put(world, b"two", If_None_Match="*")
    assert (status, code(body)) == (412, "DENIED")
    one = f'"{Digest.of(image(b"one"))}"'
    assert (await put(world, b"two", If_Match='"sha256:other"'))[0] == 412
    assert (await put(world, b"two", If_Match=f'"sha256:other", {one}'))[0] == 201
    assert (await put(world, b"three", If_Match=one))[0] == 412
    assert (await put(world, b"three", "new", If_Match="*"))[0] == 412
    assert (await world.ask("DELETE", "/v2/a/manifests/v1", headers={"If-Match": one}))[0] == 412
    assert (await world.ask("HEAD", "/v2/a/manifests/v1"))[1]["docker-content-digest"] == Digest.of(image(b"two"))


async def test_of_many_who_swap_the_same_tag_one_wins(world: World) -> None:
    await put(world, b"start")
    layers = [f"layer {n}".encode() for n in range(8)]
    for layer in layers:
        await world.push_blob("a", layer)
    start = f'"{Digest.of(image(b"start"))}"'
    answers = await asyncio.gather(*(put(world, layer, If_Match=start) for layer in layers))
    assert sorted(status for status, _ in answers) == [201] + [412] * 7


async def test_an_immutable_tag_is_neither_moved_nor_removed(world: World) -> None:
    repositories = world.registry.repositories
    assert repositories.set_tag_rule(TagRule("a", "v*"), present=True)
    assert (await put(world, b"one"))[0] == 201
    assert (await put(world, b"one"))[0] == 201  # the same again changes nothing
    status, body = await put(world, b"two")
    assert (status, code(body)) == (409, "DENIED")
    assert b"immutable" in body
    digest = Digest.of(image(b"one"))
    for version in ("v1", digest):
        assert (await world.ask("DELETE", f"/v2/a/manifests/{version}"))[0] == 409
    assert (await put(world, b"two", "latest"))[0] == 201
    with pytest.raises(Immutable):
        repositories.link("a", "v1", Digest.of(image(b"two")))
    assert (await world.ask("HEAD", "/v2/a/manifests/v1"))[1]["docker-content-digest"] == digest
    assert repositories.set_tag_rule(TagRule("a", "v*"), present=False)
    assert (await put(world, b"two"))[0] == 201


async def test_a_tag_has_a_history_and_goes_back_to_what_it_was(world: World) -> None:
    repositories = world.registry.repositories
    for layer in (b"one", b"two"):
        await put(world, layer)
    one, two = Digest.of(image(b"one")), Digest.of(image(b"two"))
    assert [change.digest for change in repositories.history("a", "v1")] == [two, one]
    assert repositories.rollback("a", "v1") == one
    assert (await world.ask("GET", "/v2/a/manifests/v1"))[2] == image(b"one")
    assert repositories.rollback("a", "v1", two) == two
    assert (await world.ask("DELETE", "/v2/a/manifests/v1"))[0] == 202
    assert repositories.history("a", "v1")[0].digest is None
    assert repositories.rollback("a", "v1") == two
    with pytest.raises(NotFound, match="never stood for"):
        repositories.rollback("a", "v1", Digest.of(b"other"))


async def test_what_was_deleted_comes_back_whole_within_the_undo_window(world: World) -> None:
    repositories = world.registry.repositories
    await put(world, b"one")
    await put(world, b"one", "latest")
    digest = Digest.of(image(b"one"))
    assert (await world.ask("DELETE", f"/v2/a/manifests/{digest}"))[0] == 202
    assert (await world.ask("GET", "/v2/a/manifests/v1"))[0] == 404
    assert sweep(world.content, [repositories]).removed == ()
    await put(world, b"two", "latest")  # taken in the meantime: it is not taken away again
    assert [each.digest for each in repositories.gone("a")] == [digest]
    repositories.restore("a", digest)
    assert (await world.ask("GET", "/v2/a/manifests/v1"))[2] == image(b"one")
    assert (await world.ask("GET", f"/v2/a/blobs/{Digest.of(b'one')}"))[2] == b"one"
    assert (await world.ask("GET", "/v2/a/manifests/latest"))[2] == image(b"two")
    assert repositories.gone("a") == []


async def test_a_deleted_blob_comes_back_and_after_the_window_nothing_does(world: World) -> None:
    repositories = world.registry.repositories
    digest = await world.push_blob("a", b"alone")
    await put(world, b"one")
    for path in (f"blobs/{digest}", f"manifests/{Digest.of(image(b'one'))}"):
        assert (await world.ask("DELETE", f"/v2/a/{path}"))[0] == 202
    repositories.restore("a", digest)
    assert (await world.ask("GET", f"/v2/a/blobs/{digest}"))[2] == b"alone"
    world.database.execute("UPDATE registry_gone SET moment = 0")
    world.database.execute("UPDATE registry_blob SET moment = 0")
    gone = {verdict.digest for verdict in sweep(world.content, [repositories]).removed}
    assert gone == {digest, Digest.of(b"one"), Digest.of(b"{}"), Digest.of(image(b"one"))}
    for lost in (digest, Digest.of(image(b"one"))):
        with pytest.raises(NotFound):
            repositories.restore("a", lost)
    with pytest.raises(NotFound):
        repositories.rollback("a", "v1", Digest.of(image(b"one")))


async def test_manifests_that_nothing_names_are_deleted_when_asked(world: World) -> None:
    repositories = world.registry.repositories
    await put(world, b"one")
    await put(world, b"two")
    world.database.execute("UPDATE registry_manifest SET moment = 0")
    one = Digest.of(image(b"one"))
    assert repositories.remove_untagged(60, dry_run=True) == [("a", one)]
    assert repositories.manifest("a", one) is not None
    assert repositories.remove_untagged(60) == [("a", one)]
    assert repositories.manifest("a", one) is None
    assert repositories.manifest("a", "v1") is not None
    repositories.restore("a", one)
