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
    assert lines[0].startswith("base busybox sha256:")
    assert lines[1:4] == [
        "build Dockerfile stage-0",
        "stage-0/1 : RUN seq 5000",
        "stage-0/1 > first build of this step",
    ]
    assert [line for line in lines if " | " in line] == [f"stage-0/1 | {number}" for number in range(1, 5001)]


async def test_what_was_painted_over_on_a_terminal_is_in_the_log(world: World) -> None:
    result = await world.build("FROM busybox\nRUN printf 'a\\rb\\nc\\r\\n'\n")
    assert [line for line in Path(result.log).read_text().split("\n") if " | " in line] == [
        *("stage-0/1 | a", "stage-0/1 | b", "stage-0/1 | c")
    ]


async def test_a_build_that_fails_for_our_own_fault_is_not_called_cancelled(world: World, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "logs")
    with pytest.raises(ZeroDivisionError), journal.open(lambda _: None):
        _ = 1 / 0
    assert journal.logs()[0].how == "failed: ZeroDivisionError: division by zero"


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
