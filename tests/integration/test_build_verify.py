"""A build that is repeated: the same bytes, or the step and file in which they differ."""

import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.build import BuildRequest
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    made.database.close()


async def test_a_build_of_the_same_bytes_is_confirmed(world: World) -> None:
    world.file("Dockerfile", "FROM busybox\nCOPY Dockerfile /d\nRUN touch /now && echo same > /f\n")
    verified = await world.builder.verify(BuildRequest(context=world.context))
    assert verified.difference is None


async def test_the_first_step_and_file_that_differ_are_named(world: World) -> None:
    world.file(
        "Dockerfile", "FROM busybox\nRUN echo same > /a\nRUN busybox head -c 20 /dev/urandom > /b\nRUN cp /b /c\n"
    )
    verified = await world.builder.verify(BuildRequest(context=world.context))
    found = verified.difference
    assert found is not None
    assert (found.title, found.file, found.what) == (
        "RUN busybox head -c 20 /dev/urandom > /b",
        "/b",
        "has another content",
    )
    again = await world.builder.build(BuildRequest(context=world.context))
    assert again.image_id == verified.result.image_id
