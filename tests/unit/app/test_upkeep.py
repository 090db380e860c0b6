"""Chores come after changes, once for a burst of them, and by the hour."""

import asyncio
import logging

import pytest

from kestrel.app.upkeep import Upkeep


class Counter:
    def __init__(self) -> None:
        self.count = 0
        self.done = asyncio.Event()

    async def chore(self) -> None:
        self.count += 1
        self.done.set()


async def test_a_burst_of_changes_is_one_chore() -> None:
    counter = Counter()
    async with Upkeep([counter.chore], quiet=0.05) as upkeep:
        for _ in range(10):
            upkeep.changed()
            await asyncio.sleep(0.01)
        assert counter.count == 0
        await asyncio.wait_for(counter.done.wait(), 5)
        await asyncio.sleep(0.1)
    assert counter.count == 1


async def test_nothing_happens_without_a_change_until_the_hour() -> None:
    often, seldom = Counter(), Counter()
    async with Upkeep([often.chore], [seldom.chore], quiet=0, period=0.2) as upkeep:
        upkeep.changed()
        await asyncio.wait_for(often.done.wait(), 5)
        assert seldom.count == 0
        await asyncio.wait_for(seldom.done.wait(), 5)
        assert often.count == 2


async def test_a_chore_that_fails_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    counter = Counter()

    async def fails() -> None:
        raise OSError("the disk is on holiday")

    with caplog.at_level(logging.ERROR):
        async with Upkeep([fails, counter.chore], quiet=0) as upkeep:
            upkeep.changed()
            await asyncio.wait_for(counter.done.wait(), 5)
    assert "on holiday" in caplog.text


async def test_leaving_waits_for_the_chore_under_way() -> None:
    begun, ended = asyncio.Event(), False

    async def slow() -> None:
        nonlocal ended
        begun.set()
        await asyncio.sleep(0.1)
        ended = True

    async with Upkeep([slow], quiet=0) as upkeep:
        upkeep.changed()
        await asyncio.wait_for(begun.wait(), 5)
    assert ended
