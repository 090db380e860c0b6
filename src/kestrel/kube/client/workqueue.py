"""A queue of keys for control loops: each key once, never worked on twice at a time, retried with growing delays.

A key that is added while it is being worked on comes again when the work is done; one that is added several times
before that comes once. `retry` waits longer each time until `forget`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from kestrel.base.errors import KestrelError

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)


class Closed(Exception):  # noqa: N818 - a signal to the reader, not a failure
    """The queue was closed and hands out no more keys."""


class WorkQueue(Generic[K]):
    """Keys that want attention. Use from one event loop."""

    def __init__(self, *, first_delay: float = 0.005, longest_delay: float = 60.0) -> None:
        self._first = first_delay
        self._longest = longest_delay
        self._order: deque[K] = deque()
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._closed = False
        self._waiters: deque[asyncio.Future[None]] = deque()

    def add(self, key: K) -> None:
        """Ask for a key to be worked on soon."""
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._order.append(key)
            self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """Add a key later; of several times asked for, the earliest holds."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: K) -> float:
        """Add a key again after a delay that doubles with every retry; returns the delay in seconds."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(self._first * 2.0 ** min(count, 40), self._longest)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Let the next retry of this key start with the shortest delay again."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Take the next key, waiting for one; call `done` with it afterwards. Raises Closed."""
        while not self._order:
            if self._closed:
                raise Closed
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        key = self._order.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Say that the work on a key is over; it comes again if it was added meanwhile."""
        self._working.discard(key)
        if key in self._dirty:
            self._order.append(key)
            self._wake()

    async def run(self, work: Callable[[K], Awaitable[None]], *, workers: int = 1) -> None:
        """Work on keys until cancelled or closed; what raises is logged and retried."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(work))

    async def _worker(self, work: Callable[[K], Awaitable[None]]) -> None:
        while True:
            try:
                key = await self.get()
            except Closed:
                return
            try:
                await work(key)
            except Exception as error:
                delay = self.retry(key)
                level = logging.DEBUG if isinstance(error, KestrelError) else logging.ERROR
                log.log(level, "%s: again in %.3g s: %s", key, delay, error, exc_info=level == logging.ERROR)
            else:
                self.forget(key)
            finally:
                self.done(key)

    def close(self) -> None:
        """Take no more keys, cancel what was to come later, wake who waits."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._waiters:
            self._wake()

    def __len__(self) -> int:
        return len(self._order)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
