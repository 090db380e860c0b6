"""Keys that want attention."""

import asyncio

import pytest

from kestrel.kube.client import WorkQueue
from kestrel.kube.client.workqueue import Closed


async def test_a_key_added_often_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_during_its_work_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"


async def test_retries_wait_longer_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(first_delay=1, longest_delay=5)
    assert [queue.retry("a") for _ in range(5)] == [1, 2, 4, 5, 5]
    queue.forget("a")
    assert queue.retry("a") == 1
    queue.close()


async def test_of_two_delays_the_shorter_holds() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    assert await asyncio.wait_for(queue.get(), 5) == "a"
    queue.close()


async def test_work_that_fails_is_done_again_and_does_not_stop_the_rest() -> None:
    queue: WorkQueue[str] = WorkQueue(first_delay=0.001)
    seen: list[str] = []

    third = asyncio.Event()

    async def work(key: str) -> None:
        seen.append(key)
        if key == "bad" and seen.count("bad") < 3:
            raise RuntimeError("not yet")
        if key == "bad":
            third.set()

    running = asyncio.create_task(queue.run(work, workers=2))
    for key in ("bad", "good"):
        queue.add(key)
    await asyncio.wait_for(third.wait(), 5)
    running.cancel()
    await asyncio.wait([running])
    assert seen.count("good") == 1


async def test_a_closed_queue_ends_its_workers() -> None:
    queue: WorkQueue[str] = WorkQueue()

    async def work(key: str) -> None:
        raise AssertionError(key)

    running = asyncio.create_task(queue.run(work))
    await asyncio.sleep(0)
    queue.close()
    await asyncio.wait_for(running, 5)
    with pytest.raises(Closed):
        await queue.get()
