"""Save and load: ours, docker's old form, and files that lie."""

import io
import json
import os
import tarfile
from typing import Any

import pytest

from kestrel.archive.entries import Entry, Kind
from kestrel.base.errors import DataLoss, InvalidArgument
from kestrel.content import Store
from kestrel.images import ImageService
from kestrel.snapshots import Snapshotter
from kestrel.testing.images import tar_of, tiny_image

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


async def saved(images: ImageService, registry: Any) -> bytes:
    for name, extra in (("one:1", b"1"), ("two:2", b"2")):
        registry.serve(name, tiny_image(layers=[{"base": b"shared"}, {name: extra}], busybox=False))
        await images.pull(name)
    await images.tag("one:1", "also/one:9")
    sink = io.BytesIO()
    await images.save(["one:1", "also/one:9", "two:2"], sink)
    return sink.getvalue()


def member(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


async def test_what_is_saved_is_loaded_with_its_names(
    images: ImageService, registry: Any, snapshots: Snapshotter
) -> None:
    data = await saved(images, registry)
    before = await images.list()
    for image in before:
        await images.remove(image.id, force=True)
    assert snapshots.layers() == []
    loaded = await images.load(io.BytesIO(data))
    assert sorted(loaded, key=lambda image: image.id) == sorted(before, key=lambda image: image.id)


async def test_an_image_is_saved_under_the_names_it_is_asked_for_by(images: ImageService, registry: Any) -> None:
    await saved(images, registry)
    for name, names in (("one:1", ["one:1"]), ((await images.resolve("one:1")).id, [])):
        sink = io.BytesIO()
        await images.save([name], sink)
        assert json.loads(member(sink.getvalue(), "manifest.json"))[0]["RepoTags"] == names


async def test_a_saved_file_is_a_layout_and_a_docker_archive(images: ImageService, registry: Any) -> None:
    data = await saved(images, registry)
    assert json.loads(member(data, "oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    first, second = json.loads(member(data, "manifest.json"))
    assert first["RepoTags"] == ["one:1", "also/one:9"]
    assert second["RepoTags"] == ["two:2"]
    assert first["Layers"][0] == second["Layers"][0]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))


async def test_an_archive_of_an_older_docker_is_loaded(images: ImageService) -> None:
    image = tiny_image(layers=[{"base": b"1"}, {"top": b"2"}], busybox=False)
    listed = [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    data = tar_of(
        (Entry(name="a/layer.tar"), image.tars[0]),
        (Entry(name="x/layer.tar"), image.tars[1]),
        Entry(name="b/layer.tar", kind=Kind.SYMLINK, link="../x/layer.tar"),
        (Entry(name="c.json"), image.config_bytes),
        (Entry(name="manifest.json"), json.dumps(listed).encode()),
    )
    (loaded,) = await images.load(io.BytesIO(data))
    assert (loaded.id, loaded.layers, loaded.names) == (image.id, image.diff_ids, ("old:1",))


async def test_a_file_whose_blobs_lie_is_refused(images: ImageService, registry: Any) -> None:
    data = await saved(images, registry)
    first = json.loads(member(data, "manifest.json"))[0]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(Entry(name=each.name), member(data, each.name)) for each in tar]
    forged = [
        (entry, content[:-1] + b"?" if entry.name == first["Layers"][1] else content) for entry, content in members
    ]
    for image in await images.list():
        await images.remove(image.id, force=True)
    with pytest.raises(DataLoss, match="has the digest"):
        await images.load(io.BytesIO(tar_of(*forged)))
    assert await images.list() == []


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([], "holds no image"),
        ([(Entry(name="manifest.json"), b"{}")], "not a list"),
        ([(Entry(name="manifest.json"), b"[{}]")], "without Config"),
        ([(Entry(name="manifest.json"), b'[{"Config":"../../etc/passwd"}]')], "does not hold it"),
        ([(Entry(name="manifest.json"), b'[{"Config":"c","Layers":"x"}]')], "no list of names"),
        ([(Entry(name="index.json"), b'{"schemaVersion":2,"layers":[]}')], "another kind"),
    ],
)
async def test_what_is_no_image_file_is_refused(
    images: ImageService, content: Store, members: list[tuple[Entry, bytes]], word: str
) -> None:
    with pytest.raises(InvalidArgument, match=word):
        await images.load(io.BytesIO(tar_of(*members)))
    await images.prune(grace=0)
    assert list(content.walk()) == []
