"""Collecting what the builder keeps: what is shown is what is done, and images lose nothing."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import KestrelError
from kestrel.build.collect import Collection, Policy
from kestrel.oci.digest import Digest
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MOUNTED = "FROM busybox\nRUN --mount=type=cache,target=/c,id=wheels echo cached > /c/x; echo {} > /made\n"


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    made.database.close()


def named(collection: Collection) -> dict[str, tuple[bool, str]]:
    return {each.held.name: (each.removed, each.reason) for each in collection.judged}


async def test_a_dry_run_says_what_would_go_and_removes_nothing(world: World) -> None:
    await world.build(MOUNTED.format(1))
    shown = await world.builder.collect(Policy(everything=True), dry_run=True)
    assert {each.held.kind for each in shown.removed} == {"step", "cache mount"}
    assert "wheels" in named(shown)
    assert shown.freed > 0
    again = await world.build(MOUNTED.format(1))
    assert [step.cached for step in again.steps] == [True]


async def test_everything_goes_and_a_build_starts_afresh(world: World) -> None:
    first = await world.build(MOUNTED.format(1), tags=("kept:1",))
    done = await world.builder.collect(Policy(everything=True))
    assert done.removed
    assert os.listdir(world.root / "builder/caches") == []
    assert (world.unpacked(first) / "made").read_text() == "1\n"  # the image has its layers still
    again = await world.build(MOUNTED.format(1))
    assert [step.cached for step in again.steps] == [False]


async def test_what_no_image_has_is_taken_from_the_disk(world: World) -> None:
    result = await world.build(MOUNTED.format(1), tags=("gone:1",))
    layer = result.steps[0].layer
    await world.images.remove("gone:1")
    await world.builder.collect(Policy(unused_for=3600))
    blob, diff_id = Digest.parse(layer.blob), Digest.parse(layer.diff_id)
    assert world.content.has(blob)
    done = await world.builder.collect(Policy(unused_for=0))
    assert not world.content.has(blob)
    assert not world.snapshots.has_layer(diff_id)
    assert done.freed >= layer.size


async def test_the_place_of_a_step_is_named(world: World) -> None:
    await world.build("FROM scratch AS base\nCOPY <<end /x\nx\nend\n")
    (reason,) = [why for _, why in named(await world.builder.collect(Policy(), dry_run=True)).values()]
    assert f" by base 1 of {world.context}:Dockerfile; the image " in reason


async def test_steps_and_caches_of_a_running_build_stay(world: World) -> None:
    text = "FROM busybox\nRUN echo first > /first\nRUN --mount=type=cache,target=/c,id=busy echo up; sleep 60\n"
    build = asyncio.create_task(world.build(text))
    await world.said_something.wait()
    done = named(await world.builder.collect(Policy(everything=True)))
    assert done["RUN echo first > /first"] == (False, "a build that runs uses it")
    assert done["busy"] == (False, "a build that runs uses it")
    build.cancel()
    await asyncio.wait([build])


async def test_logs_are_listed_and_found_by_a_part_of_their_name(world: World) -> None:
    result = await world.build("FROM busybox\nRUN echo something said\n", tags=("named:1",))
    (log,) = world.builder.logs()
    assert str(log.path) == result.log
    assert log.how == f"image {result.image_id} named:1"
    assert world.builder.log(log.name[-6:]) == log
    with pytest.raises(KestrelError):
        await world.build("FROM busybox\nRUN false\n")
    assert world.builder.logs()[0].how == "failed: `RUN false` failed with exit code 1"
    text = log.path.read_text()
    assert text.startswith("base busybox sha256:")
    assert "\nbuild Dockerfile stage-0\nstage-0/1 : RUN echo something said\n" in text
    assert "stage-0/1 | something said\n" in text
