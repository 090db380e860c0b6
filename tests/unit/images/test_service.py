"""Images on this host. Layers are unpacked for real, which needs root; the registry is in memory."""

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kestrel.base.errors import Conflict, DataLoss, InvalidArgument, NotFound
from kestrel.content import Store
from kestrel.images import ImageService, Progress
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.snapshots import Snapshotter
from kestrel.testing.images import TinyImage, compressed, layer, tiny_image

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def tiny(*layers: dict[str, bytes], **more: Any) -> TinyImage:
    return tiny_image(layers=layers, busybox=False, **more)


BASE = {"base": b"shared by all" * 1000}


async def test_a_pulled_image_can_be_found_by_every_name_it_has(registry: Any, images: ImageService) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    pulled = await images.pull("app:1")
    assert (pulled.id, pulled.digest, pulled.layers) == (image.id, image.manifest.digest, image.diff_ids)
    assert pulled.names == ("app:1",)
    assert pulled.size == len(BASE["base"])
    names = ["app:1", "docker.io/library/app:1", image.id, image.id.hex, image.id.short, image.id[:20]]
    for name in [*names, image.manifest.digest, f"app@{image.manifest.digest}"]:
        assert await images.resolve(name) == pulled
    assert await images.list() == [pulled]


async def test_an_unknown_image_is_not_found_with_a_way_out(registry: Any, images: ImageService) -> None:
    registry.serve("webserver:1", tiny(BASE))
    await images.pull("webserver:1")
    for name, hint in (
        ("webservr:1", "did you mean webserver:1?"),
        ("other", "fetch it with `kestrel pull other`"),
        ("sha256:" + "0" * 64, "`kestrel images` lists those on this host"),
    ):
        with pytest.raises(NotFound) as caught:
            await images.resolve(name)
        assert caught.value.hint == hint


async def test_an_ambiguous_beginning_of_an_id_is_refused(images: ImageService, content: Store) -> None:
    by_digit: dict[str, list[Digest]] = {}
    for number in range(40):
        image = tiny({"n": str(number).encode()})
        for blob in image.blobs.values():
            content.put(blob)
        await images.import_image(image.manifest_bytes, image.config_bytes)
        by_digit.setdefault(image.id.hex[:2], []).append(image.id)
    prefix = next((key for key, ids in by_digit.items() if len(ids) > 1), None)
    if prefix is None:
        pytest.skip("no two of these images begin alike")
    with pytest.raises(InvalidArgument, match="matches 2 images"):
        await images.resolve(prefix)


async def test_a_second_pull_fetches_nothing(registry: Any, images: ImageService) -> None:
    registry.serve("app:1", tiny(BASE))
    first = await images.pull("app:1")
    registry.fetched.clear()
    seen: list[Progress] = []
    assert await images.pull("app:1", progress=seen.append) == first
    assert registry.fetched == []
    assert "already here" in {progress.status for progress in seen}


async def test_a_shared_layer_is_fetched_and_counted_once(
    registry: Any, images: ImageService, snapshots: Snapshotter
) -> None:
    one, two = tiny(BASE, {"a": b"1"}), tiny(BASE, {"b": b"2"})
    registry.serve("one", one)
    registry.serve("two", two)
    await asyncio.gather(images.pull("one"), images.pull("two"))
    shared = next(d for d in one.blobs if d in two.blobs)
    assert [digest for digest, _ in registry.fetched].count(shared) == 1
    usage = await images.usage()
    assert usage.layer_count == 3
    assert usage.layers == sum(snapshots.layer_usage(each).size for each in {*one.diff_ids, *two.diff_ids})
    assert all(each.unique < each.size for each in usage.images)


async def test_usage_is_what_the_disk_says(registry: Any, images: ImageService, tmp_path: Path) -> None:
    registry.serve("one", tiny(BASE, {"a": b"1"}))
    await images.pull("one")
    usage = await images.usage()
    blobs = list((tmp_path / "blobs").rglob("*/*"))
    assert usage.blobs == sum(path.stat().st_size for path in blobs)
    assert usage.blob_count == len(blobs)
    layers = list((tmp_path / "layers/sha256").rglob("*"))
    assert usage.layers == sum(path.lstat().st_blocks * 512 for path in layers)


async def test_concurrent_pulls_of_one_image_are_one_pull(registry: Any, images: ImageService) -> None:
    registry.serve("app:1", tiny(BASE, {"a": b"1"}))
    found = await asyncio.gather(*(images.pull("app:1") for _ in range(5)))
    assert len({each.digest for each in found}) == 1
    assert len(registry.fetched) == len({digest for digest, _ in registry.fetched})


async def test_a_pull_goes_on_when_one_of_two_who_wait_is_cancelled(registry: Any, images: ImageService) -> None:
    registry.serve("app:1", tiny(BASE))
    registry.gate = asyncio.Event()
    first, second = (asyncio.create_task(images.pull("app:1")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    registry.gate.set()
    assert (await second).names == ("app:1",)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_cancelled_pull_ends_and_can_be_repeated(registry: Any, images: ImageService, content: Store) -> None:
    registry.serve("app:1", tiny(BASE))
    registry.gate = asyncio.Event()
    task = asyncio.create_task(images.pull("app:1"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    registry.gate.set()
    assert (await images.pull("app:1")).names == ("app:1",)
    assert content.uploads() == []


async def test_an_interrupted_pull_resumes_where_it_broke(registry: Any, images: ImageService) -> None:
    image = tiny({"big": os.urandom(300_000)})
    registry.serve("app:1", image)
    blob = Manifest.decode(image.manifest_bytes).layers[0].digest
    registry.break_after[blob] = 100_000
    with pytest.raises(ConnectionResetError):
        await images.pull("app:1")
    with pytest.raises(NotFound):
        await images.resolve("app:1")
    await images.pull("app:1")
    assert [offset for digest, offset in registry.fetched if digest == blob] == [0, 100_000]


@pytest.mark.parametrize("kind", ["changed", "shorter", "longer"])
async def test_wrong_bytes_are_data_loss_and_nothing_stays(
    registry: Any, images: ImageService, content: Store, kind: str
) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    blob = Manifest.decode(image.manifest_bytes).layers[0].digest
    good = registry.blobs[blob]
    registry.blobs[blob] = {"changed": good[:-1] + b"!", "shorter": good[:-1], "longer": good + b"!"}[kind]
    with pytest.raises(DataLoss, match=r"layer .* of app:1: docker.io sent wrong bytes") as caught:
        await images.pull("app:1")
    assert caught.value.hint
    assert not content.has(blob)
    registry.blobs[blob] = good
    await images.pull("app:1")


async def test_a_layer_that_unpacks_to_another_digest_is_refused(
    registry: Any, images: ImageService, snapshots: Snapshotter
) -> None:
    image = tiny(BASE)
    other = compressed(layer({"evil": b"1"}), "gzip")
    manifest = Manifest.decode(image.manifest_bytes)
    forged = msgspec.structs.replace(manifest, layers=(Descriptor.of(media_types.OCI_LAYER_GZIP, other),))
    descriptor = Descriptor.of(media_types.OCI_MANIFEST, forged.encode())
    registry.serve("app:1", image)
    registry.blobs |= {descriptor.digest: forged.encode(), forged.layers[0].digest: other}
    registry.tags["docker.io/library/app:1"] = descriptor
    with pytest.raises(DataLoss, match="should be"):
        await images.pull("app:1")
    assert snapshots.layers() == []
    with pytest.raises(NotFound):
        await images.resolve("app:1")


async def test_an_index_gives_the_image_of_this_machine_and_its_digest_finds_it(
    registry: Any, images: ImageService
) -> None:
    top = registry.serve("app:1", tiny(BASE), index=True)
    pulled = await images.pull("app:1")
    assert pulled.digest != top.digest
    assert await images.resolve(f"app@{top.digest}") == pulled
    assert f"app@{top.digest}" in images.digests(pulled)


async def test_an_image_can_be_pulled_by_digest_and_then_has_no_tag(registry: Any, images: ImageService) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    pulled = await images.pull(f"app@{image.manifest.digest}")
    assert pulled.names == ()
    assert await images.resolve(f"app@{image.manifest.digest}") == pulled


async def test_an_artifact_is_no_image(registry: Any, images: ImageService) -> None:
    data = Manifest.of(Descriptor.of(media_types.OCI_EMPTY, b"{}"), [], artifact_type="application/x-chart").encode()
    registry.tags["docker.io/library/chart:1"] = Descriptor.of(media_types.OCI_MANIFEST, data)
    registry.blobs[Digest.of(data)] = data
    with pytest.raises(InvalidArgument, match="artifact of type application/x-chart"):
        await images.pull("chart:1")


async def test_a_moved_tag_leaves_the_old_image_without_a_name(registry: Any, images: ImageService) -> None:
    registry.serve("app:1", tiny(BASE))
    old = await images.pull("app:1")
    registry.serve("app:1", tiny({"new": b"1"}))
    new = await images.pull("app:1")
    assert (await images.resolve("app:1")).id == new.id
    assert (await images.resolve(old.id)).names == ()
    pruned = await images.prune(grace=0)
    assert pruned.images == (old.id,)
    assert await images.list() == [await images.resolve("app:1")]


async def test_removing_a_name_keeps_the_image_until_the_last_one(
    registry: Any, images: ImageService, content: Store, snapshots: Snapshotter
) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    await images.pull("app:1")
    await images.tag("app:1", "mine:2")
    assert (await images.remove("app:1")).untagged == ("app:1",)
    assert (await images.resolve("mine:2")).id == image.id
    removed = await images.remove("mine:2")
    assert removed.deleted == (image.id,)
    assert list(content.walk()) == []
    assert snapshots.layers() == []
    with pytest.raises(NotFound):
        await images.remove("mine:2")


async def test_removing_by_id_needs_force_when_there_are_several_names(registry: Any, images: ImageService) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    await images.pull("app:1")
    await images.tag("app:1", "mine:2")
    with pytest.raises(Conflict, match="2 names"):
        await images.remove(image.id)
    assert set((await images.remove(image.id, force=True)).untagged) == {"app:1", "mine:2"}


async def test_an_image_in_use_cannot_be_removed(
    registry: Any, images: ImageService, users: dict[Digest, list[str]]
) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    pulled = await images.pull("app:1")
    users[image.id] = ["calm-owl"]
    with pytest.raises(Conflict, match="used by container calm-owl"):
        await images.remove("app:1")
    assert await images.remove("app:1", force=True) is not None
    assert (await images.resolve(image.id)).layers == pulled.layers
    assert (await images.prune(everything=True, grace=0)).images == ()
    users.clear()
    assert (await images.prune(grace=0)).images == (image.id,)


async def test_layers_other_images_share_survive_a_removal(
    registry: Any, images: ImageService, snapshots: Snapshotter, content: Store
) -> None:
    one, two = tiny(BASE, {"a": b"1"}), tiny(BASE, {"b": b"2"})
    registry.serve("one", one)
    registry.serve("two", two)
    await images.pull("one")
    await images.pull("two")
    await images.remove("one")
    assert set(snapshots.layers()) == set(two.diff_ids)
    assert {blob.digest for blob in content.walk()} == set(two.blobs)


async def test_roots_of_others_are_kept_by_removal_and_pruning(
    content: Store, snapshots: Snapshotter, database: Any, registry: Any
) -> None:
    image = tiny(BASE)
    blob = Manifest.decode(image.manifest_bytes).layers[0].digest
    images = ImageService(
        content,
        snapshots,
        database,
        registry,
        registry,
        roots={"registry": lambda: [blob]},
        layer_roots={"builds": lambda: [image.diff_ids[0]]},
    )
    registry.serve("app:1", image)
    await images.pull("app:1")
    await images.remove("app:1")
    await images.prune(grace=0)
    assert [each.digest for each in content.walk()] == [blob]
    assert snapshots.layers() == list(image.diff_ids)


async def test_an_import_needs_its_blobs_and_agreement(images: ImageService, content: Store) -> None:
    image = tiny(BASE)
    with pytest.raises(NotFound):
        await images.import_image(image.manifest_bytes, image.config_bytes, names=["x"])
    for data in image.blobs.values():
        content.put(data)
    with pytest.raises(InvalidArgument, match="1 layers but a configuration for 2"):
        await images.import_image(image.manifest_bytes, tiny(BASE, {"b": b""}).config_bytes)
    imported = await images.import_image(image.manifest_bytes, image.config_bytes, names=["x", "y:2"])
    assert imported.names == ("x:latest", "y:2")
    assert imported.id == image.id


async def test_tars_on_disk_become_an_image(images: ImageService, tmp_path: Path) -> None:
    image = tiny(BASE, {"b": b"2"})
    paths = []
    for number, tar in enumerate(image.tars):
        paths.append(tmp_path / f"{number}.tar")
        paths[-1].write_bytes(tar)
    imported = await images.import_tars(paths, image.config, names=["debian:bootstrap"])
    assert (imported.id, imported.layers) == (image.id, image.diff_ids)
    with pytest.raises(InvalidArgument, match="should be"):
        await images.import_tars(paths[::-1], image.config)


async def test_a_missing_layer_is_unpacked_again_from_its_blob(
    registry: Any, images: ImageService, snapshots: Snapshotter
) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    pulled = await images.pull("app:1")
    snapshots.remove_layer(image.diff_ids[0])
    await images.ensure_unpacked(pulled)
    assert snapshots.has_layer(image.diff_ids[0])


async def test_a_push_sends_what_is_missing_and_the_same_manifest(registry: Any, images: ImageService) -> None:
    image = tiny(BASE)
    registry.serve("app:1", image)
    await images.pull("app:1")
    await images.tag("app:1", "localhost:5000/app:2")
    registry.blobs.clear()
    digest = await images.push("localhost:5000/app:2")
    assert digest == image.manifest.digest
    assert registry.blobs == dict(image.blobs)
    registry.pushed.clear()
    await images.push("localhost:5000/app:2")
    assert registry.pushed == []
    with pytest.raises(NotFound):
        await images.push("localhost:5000/other")


async def test_history_names_the_layer_of_each_step(registry: Any, images: ImageService) -> None:
    image = tiny(BASE, {"b": b"12"})
    registry.serve("app:1", image)
    await images.pull("app:1")
    assert [(step.created_by, step.size) for step in await images.history("app:1")] == [
        ("layer 1", 2),
        ("layer 0", len(BASE["base"])),
    ]


async def test_images_survive_a_restart(
    registry: Any, images: ImageService, snapshots: Snapshotter, tmp_path: Path, database: Any
) -> None:
    registry.serve("app:1", tiny(BASE))
    pulled = await images.pull("app:1")
    again = ImageService(Store(tmp_path, database), type(snapshots)(tmp_path, database), database, registry, registry)
    assert await again.list() == [pulled]
