"""The log of a build is kept whole."""

import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import KestrelError
from kestrel.build.journal import KEPT, Journal
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    made.database.close()


async def test_every_line_is_in_the_log_of_a_build(world: World) -> None:
    result = await world.build("FROM busybox\nRUN seq 5000\n")
    lines = Path(result.log).read_text().splitlines()
    assert lines[:3] == [
        "build Dockerfile stage-0",
        "stage-0/1 : RUN seq 5000",
        "stage-0/1 > first build of this step",
    ]
    assert [line for line in lines if " | " in line] == [f"stage-0/1 | {number}" for number in range(1, 5001)]


async def test_a_failed_build_names_its_log(world: World) -> None:
    with pytest.raises(KestrelError) as caught:
        await world.build("FROM busybox\nRUN echo before && false\n")
    text = Path(str(caught.value.context["log"])).read_text()
    assert "stage-0/1 | before" in text
    assert "failed with exit code 1" in text


def test_only_the_newest_logs_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "logs")
    for _ in range(KEPT + 5):
        with journal.open(lambda _: None):
            pass
    assert len(list((tmp_path / "logs").iterdir())) == KEPT
