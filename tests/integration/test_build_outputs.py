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

from kestrel.base.errors import AlreadyExists, InvalidArgument
from kestrel.build.outputs import parse_output
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


async def test_a_root_filesystem_as_a_directory_that_must_be_empty(world: World, tmp_path: Path) -> None:
    out = parse_output(f"{tmp_path}/dir")
    await world.build(TEXT, outputs=(out,))
    assert (tmp_path / "dir/d/kept").read_text() == "y\n"
    with pytest.raises(AlreadyExists, match="is not empty"):
        await world.build(TEXT, outputs=(out,))


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
