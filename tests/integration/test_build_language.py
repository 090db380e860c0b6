"""What single instructions leave in the image, where other builders had to show us."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.build import BuildRequest
from kestrel.dockerfile import DockerfileError
from kestrel.linux import mounts
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    assert made.snapshots.keys() == []
    assert os.listdir(tmp_path / "builder" / "scratch") == []
    made.database.close()


def owned(world: World, result: Any) -> dict[str, tuple[int, int, int]]:
    """Mode, user and group of everything in an image."""
    view = world.snapshots.view(world.config(result).rootfs.diff_ids)
    with mounts.opened(mounts.open_rootfs(view)) as fd:
        root = Path(f"/proc/self/fd/{fd}/.")
        found = {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}
        return {name: (s.st_mode & 0o7777, s.st_uid, s.st_gid) for name, s in found.items()}


async def test_the_same_copy_twice_is_the_same_layer_twice_and_still_an_image(world: World) -> None:
    world.write(a="1", d__b="2")
    result = await world.build("FROM scratch\nCOPY . /x\nCOPY . /x\nCOPY d /x\n")
    layers = world.config(result).rootfs.diff_ids
    assert layers[0] == layers[1]
    assert sorted(p.name for p in (world.unpacked(result) / "x").iterdir()) == ["Dockerfile", "a", "b", "d"]


async def test_a_directory_made_for_a_copy_has_the_mode_that_was_given_as_a_number(world: World) -> None:
    world.write(a="1")
    text = "COPY --chmod=770 a /n/m/a\nCOPY --chmod=go=X a /s/a\nADD --chmod=711 --chown=3:4 a /d/\n"
    files = owned(world, await world.build(f"FROM scratch\n{text}"))
    assert [files[name] for name in ("n", "n/m", "n/m/a")] == [(0o770, 0, 0)] * 3
    assert (files["s"], files["s/a"]) == ((0o755, 0, 0), (0o600, 0, 0))
    assert (files["d"], files["d/a"]) == ((0o711, 3, 4),) * 2


async def test_workdir_belongs_to_the_user_unless_it_was_there(world: World) -> None:
    world.write(a="1")
    result = await world.build(
        "FROM busybox\nCOPY a /there/\nUSER app\nWORKDIR /w/x\nWORKDIR /there\n"
        "USER 7:8\nWORKDIR y\nUSER stranger\nWORKDIR /z\n"
    )
    files = owned(world, result)
    owners = {name: files[name][1:] for name in ("w", "w/x", "there", "there/y", "z")}
    assert owners == {"w": (1000, 1001), "w/x": (1000, 1001), "there": (0, 0), "there/y": (7, 8), "z": (0, 0)}


async def test_a_build_without_cache_begins_its_cache_mounts_anew(world: World) -> None:
    text = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c touch /c/$N && ls /c\n"
    text += "RUN --mount=type=cache,target=/c ls /c\n"
    await world.build(text, build_args={"N": "one"})
    await world.build(text, build_args={"N": "two"}, no_cache=True)
    assert world.log() == ["two", "two"]
    await world.build(text, build_args={"N": "three"})
    assert world.log()[:2] == ["three", "two"]


async def test_a_dockerfile_may_be_called_in_small_letters(world: World) -> None:
    await world.build("FROM scratch\nLABEL a=b\n")
    (world.context / "Dockerfile").rename(world.context / "dockerfile")
    result = await world.builder.build(BuildRequest(context=world.context))
    assert world.config(result).config.labels == {"a": "b"}


async def test_the_dockerfile_can_say_which_time_its_files_have(world: World) -> None:
    text = "ARG SOURCE_DATE_EPOCH=1700000001\nFROM scratch\nCOPY Dockerfile /\n"
    result = await world.build(text)
    assert (world.unpacked(result) / "Dockerfile").stat().st_mtime == 1_700_000_001
    result = await world.build(text, build_args={"SOURCE_DATE_EPOCH": "1700000002"})
    assert (world.unpacked(result) / "Dockerfile").stat().st_mtime == 1_700_000_002
    with pytest.raises(DockerfileError, match=r"SOURCE_DATE_EPOCH is `soon`(.|\n)*Dockerfile:1"):
        await world.build("ARG SOURCE_DATE_EPOCH=soon\nFROM scratch\nCOPY Dockerfile /\n")
    for word in ("soon", "253402300800", "9" * 5000):
        with pytest.raises(InvalidArgument, match=f"SOURCE_DATE_EPOCH is `{word[:40]}`"):
            await world.build(text, build_args={"SOURCE_DATE_EPOCH": word})
    await world.build(text, build_args={"SOURCE_DATE_EPOCH": "253402300799"})


async def test_workdir_is_kept_as_it_is_written(world: World) -> None:
    result = await world.build("FROM busybox\nWORKDIR /tmp/x/\nRUN pwd\n")
    assert world.config(result).config.working_dir == "/tmp/x/"
    assert world.log() == ["/tmp/x"]


async def test_an_archive_that_begins_with_an_entry_without_a_name_is_unpacked(world: World) -> None:
    with tarfile.open(world.context / "odd.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(""))
        member = tarfile.TarInfo("file")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    files = world.unpacked(await world.build("FROM scratch\nADD odd.tar /\n"))
    assert [(p.name, p.read_text()) for p in files.iterdir()] == [("file", "hi")]


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        ("source=f,target=/etc", "`/etc` is a directory of the image, and a file cannot be mounted on it"),
        (
            "source=d,target=/etc/passwd",
            "`/etc/passwd` is a file of the image, and a directory cannot be mounted on it",
        ),
        ("type=cache,target=/etc/passwd", "`/etc/passwd` is a file of the image, and a directory cannot"),
        ("from=a,source=/d/f,target=/etc", "`/etc` is a directory of the image, and a file cannot be mounted on it"),
        ("type=tmpfs,target=/etc/passwd/x", "`/etc/passwd/x` cannot be mounted on: what it would be in is a file"),
    ],
)
async def test_mounts_that_find_no_place_say_so(world: World, mount: str, sentence: str) -> None:
    world.write(f="1", d__f="1")
    text = f"FROM busybox AS a\nCOPY d /d\nFROM busybox\nRUN --mount={mount} true\n"
    with pytest.raises(DockerfileError, match=sentence) as caught:
        await world.build(text)
    assert caught.value.line == 4
    await world.build(text.replace("/etc", "/new").replace("true", "ls /new"))
