"""Builds as files: archives that other tools read, root filesystems as a tar or a directory."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from kestrel.archive.compression import LayerReader
from kestrel.base.errors import InvalidArgument
from kestrel.build.outputs import Output, parse_output
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
TEXT = "FROM busybox AS a\nRUN echo x > /gone && echo y > /kept\nFROM scratch\nCOPY --from=a /kept /gone /d/\n"


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    made.database.close()


async def test_an_archive_is_an_oci_layout_and_a_docker_archive(world: World, tmp_path: Path) -> None:
    out = parse_output(f"type=oci,dest={tmp_path}/o/image.tar")
    result = await world.build(TEXT, outputs=(out,), tags=("out:1",))
    with tarfile.open(out.destination) as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json") or io.BytesIO())
        docker = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert "oci-layout" in names
    assert index["manifests"][0]["digest"] == result.digest
    assert docker[0]["RepoTags"] == ["out:1"]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_a_root_filesystem_as_a_tar(world: World, tmp_path: Path, compression: str) -> None:
    out = parse_output(f"type=tar,dest={tmp_path}/root.tar,compression={compression}")
    await world.build(f"{TEXT}FROM busybox\nRUN rm /etc/group\n", outputs=(out,))
    data = out.destination.read_bytes()
    if compression == "gzip":
        data = gzip.decompress(data)
    elif compression == "zstd":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert "bin/busybox" in names
    assert "etc/group" not in names
    assert not [name for name in names if ".wh." in name]


async def test_a_root_filesystem_as_a_directory_beside_what_is_there(world: World, tmp_path: Path) -> None:
    out = parse_output(f"{tmp_path}/dir")
    place = tmp_path / "dir"
    await world.build(TEXT, outputs=(out,))
    assert (place / "d/kept").read_text() == "y\n"
    (place / "d/other").write_text("mine")
    (place / "d/kept").write_text("old")
    (place / "d/gone").unlink()
    (place / "d/gone").symlink_to(tmp_path / "outside")
    place.chmod(0o700)
    await world.build(TEXT, outputs=(out,))
    assert {p.name: p.read_text() for p in (place / "d").iterdir()} == {"kept": "y\n", "gone": "x\n", "other": "mine"}
    assert not (tmp_path / "outside").exists()
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("compression", "kind"), [("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("uncompressed", "tar")])
async def test_an_archive_has_layers_of_the_compression_that_is_asked_for(
    world: World, tmp_path: Path, compression: str, kind: str
) -> None:
    out = parse_output(f"type=oci,dest={tmp_path}/image.tar,compression={compression}")
    for _ in range(2):  # what is remembered of the first time does not have to be there any more
        result = await world.build(TEXT, outputs=(out,), tags=("out:1",))
        with tarfile.open(out.destination) as tar:
            files = {name: (tar.extractfile(name) or io.BytesIO()).read() for name in tar.getnames()}
        digest = json.loads(files["index.json"])["manifests"][0]["digest"]
        manifest = json.loads(files["blobs/" + digest.replace(":", "/")])
        (layer,) = manifest["layers"]
        assert layer["mediaType"] == f"application/vnd.oci.image.layer.v1.{kind}"
        reader = LayerReader(io.BytesIO(files["blobs/" + layer["digest"].replace(":", "/")]))
        reader.finish()
        assert (reader.plain.digest(),) == world.config(result).rootfs.diff_ids
        assert json.loads(files["manifest.json"])[0]["Layers"] == ["blobs/" + layer["digest"].replace(":", "/")]
        await world.images.prune(grace=0)


@pytest.mark.parametrize("text", ["type=ocy,dest=x", "type=tar", "type=tar,dest=-", "type=tar,dest=x,level=3"])
def test_outputs_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_output(text)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tags": ("UP:x",)}, "the repository must be lower case"),
        ({"tags": ("a@sha256:" + "0" * 64,)}, "has a digest"),
        ({"network": "nome"}, "unknown network `nome`"),
        ({"outputs": ("type=tar,dest=/dev/null/x.tar",)}, "/dev/null is not a directory to write into"),
        ({"outputs": ("type=oci,dest=/tmp",)}, "the output /tmp is a directory"),
        ({"outputs": ("type=tar,dest=/dev/zero",)}, "the output /dev/zero is no file that can be replaced"),
        ({"outputs": ("/dev/null",)}, "the output /dev/null is a file"),
    ],
)
async def test_what_a_request_has_wrong_is_said_before_anything_runs(
    world: World, options: dict[str, Any], sentence: str
) -> None:
    options = {**options, "outputs": tuple(parse_output(text) for text in options.get("outputs", ()))}
    with pytest.raises(InvalidArgument, match=sentence):
        await world.build("FROM busybox\nRUN true\n", **options)
    assert world.ran() == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"source_date_epoch": -1}, "the time of a build cannot be -1"),
        ({"source_date_epoch": 10**20}, "the time of a build cannot be 1e"),
        ({"outputs": (Output(type="zip", destination=Path("x")),)}, "unknown output type 'zip'"),
        ({"outputs": (Output(type="tar", destination=Path("x"), compression="lz4"),)}, "unknown compression 'lz4'"),
        ({"tags": "abc"}, "the names are the text `abc`"),
    ],
)
async def test_what_a_program_asks_for_is_looked_at_too(world: World, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        await world.build("FROM busybox\n", **options)
