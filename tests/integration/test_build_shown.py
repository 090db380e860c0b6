"""RUN --mount=type=bind shows a stage or the context as it is, and copies neither."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.db import Database
from kestrel.build import mounts
from kestrel.dockerfile import DockerfileError
from kestrel.snapshots import Erofs, Overlay, Snapshotter
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
STAGE = "FROM busybox AS a\nRUN mkdir -p /d/e && echo hi > /d/e/f && chown 7:8 /d/e/f && ln -s e /d/l\n"


@pytest.fixture(params=[Erofs, Overlay])
async def world(tmp_path: Path, request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    make: Callable[[Path, Database], Snapshotter] = request.param
    made = World(tmp_path, make)
    await made.busybox()
    monkeypatch.setattr(mounts, "_materialise", lambda *_: pytest.fail("something was copied"))
    yield made
    assert made.snapshots.keys() == []
    made.database.close()


async def test_directories_and_files_of_a_stage(world: World) -> None:
    await world.build(
        f"{STAGE}FROM busybox\nRUN --mount=type=bind,from=a,source=/d,target=/m "
        "--mount=type=bind,from=a,source=/d/l/f,target=/file cat /m/l/f /file && stat -c %u:%g /file; ! touch /m/x\n"
    )
    assert world.log() == ["hi", "hi", "7:8", "touch: /m/x: Read-only file system"]


async def test_an_image_of_one_layer(world: World) -> None:
    await world.build("FROM busybox\nRUN --mount=type=bind,from=busybox,source=/etc,target=/m ls /m\n")
    assert world.log() == ["group", "passwd"]


async def test_the_context_is_root_s_and_without_what_is_ignored(world: World) -> None:
    world.write(_dot_dockerignore="hidden\n", hidden="x", seen="seen", dir__deep="deep")
    os.chown(world.context / "seen", 1000, 1000)
    await world.build(
        "FROM busybox\nRUN --mount=type=bind,target=/m --mount=type=bind,source=dir/deep,target=/one "
        "ls /m && stat -c '%u %Y' /m/seen && cat /one\n"
    )
    assert world.log() == ["Dockerfile", "dir", "seen", "0 1704164645", "deep"]


async def test_a_command_that_changed_finds_the_same_files_ready(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(seen="seen")
    world.file("Dockerfile.other", "")
    await world.build("FROM busybox\nRUN --mount=type=bind,source=seen,target=/m cat /m\n")
    monkeypatch.setattr("kestrel.build.shown.compose", lambda *_a, **_k: pytest.fail("made again"))
    await world.build("FROM busybox\nRUN --mount=type=bind,source=seen,target=/m cat /m /m\n")
    assert world.log() == ["seenseen"]


async def test_what_is_not_there_is_named(world: World) -> None:
    with pytest.raises(DockerfileError, match="nothing` is not in the build context"):
        await world.build("FROM busybox\nRUN --mount=type=bind,source=nothing,target=/m true\n")


async def test_what_may_be_written_to_is_a_copy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    world.write(seen="seen")
    await world.build("FROM busybox\nRUN --mount=type=bind,target=/m,rw echo more >> /m/seen && cat /m/seen\n")
    assert world.log() == ["seenmore"]
    assert (world.context / "seen").read_text() == "seen"
