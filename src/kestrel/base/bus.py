"""A small typed event bus: one publisher side, many asyncio readers, none able to hold the others up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Bus(Generic[T]):
    """Hands every published event to every open subscription, in order.

    `publish` never waits: a reader that falls more than `backlog` events behind is cut off with `Lagged`, so a
    stalled client costs bounded memory. Use from one event loop.
    """

    def __init__(self, *, backlog: int = 4096) -> None:
        self._backlog = backlog
        self._subscriptions: set[Subscription[T]] = set()

    def publish(self, event: T) -> None:
        """Deliver to everyone who listens now."""
        for subscription in tuple(self._subscriptions):
            subscription._offer(event)

    def subscribe(self, wanted: Callable[[T], bool] = lambda _: True) -> "Subscription[T]":
        """Return an open subscription; events published from now on wait in it. Close it, or use `async with`."""
        subscription = Subscription(self._backlog, wanted, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription


class Lagged(Exception):  # noqa: N818 - a signal to the reader, not a failure of the bus
    """The reader was too slow; it has to look at the state again and subscribe anew."""


class Subscription(Generic[T]):
    """One reader's queue: iterate it, or call `next`."""

    def __init__(self, backlog: int, wanted: Callable[[T], bool], forget: "Callable[[Subscription[T]], None]") -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue(backlog)
        self._wanted = wanted
        self._forget = forget
        self._lagged = False

    def _offer(self, event: T) -> None:
        if not self._wanted(event):
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._lagged = True
            self._forget(self)

    async def next(self) -> T:
        """Return the next event; raises Lagged when events were lost before it."""
        if self._lagged and self._queue.empty():
            raise Lagged
        return await self._queue.get()

    def close(self) -> None:
        """Stop listening."""
        self._forget(self)

    async def __aiter__(self) -> AsyncIterator[T]:
        with suppress(Lagged):
            while True:
                yield await self.next()

    async def __aenter__(self) -> "Subscription[T]":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
