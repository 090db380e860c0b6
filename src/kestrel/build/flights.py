"""Identical work of several builds, done once.

Whoever comes first starts it; who comes later waits for the same result and sees the same output. One build that is
cancelled leaves the others waiting undisturbed; when the last one is gone the work is cancelled and has cleaned up
before `join` ends.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E")
Tell = Callable[[E], None]


@dataclass(slots=True, eq=False)
class _Flight(Generic[T, E]):
    """One piece of work under way: who listens, and what was told so far."""

    task: "asyncio.Task[T]"
    waiters: int = 0
    listeners: list[Tell[E]] = field(default_factory=list)
    told: list[E] = field(default_factory=list)


class Flights(Generic[T, E]):
    """Work by key. Use from one event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T, E]] = {}

    async def join(self, key: str, work: Callable[[Tell[E]], Awaitable[T]], listener: Tell[E]) -> T:
        """Return the result of the work under `key`, starting it if nobody has; `listener` hears what it tells."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, work)
        for event in flight.told:
            listener(event)
        flight.listeners.append(listener)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.listeners.remove(listener)
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                self._flights.pop(key, None)  # a newcomer starts afresh instead of joining what is being cancelled
                flight.task.cancel()
                await asyncio.wait([flight.task])
                if not flight.task.cancelled():
                    flight.task.exception()  # seen: nobody is left to tell

    def _start(self, key: str, work: Callable[[Tell[E]], Awaitable[T]]) -> _Flight[T, E]:
        async def run() -> T:
            try:
                return await work(tell)
            finally:
                if self._flights.get(key) is flight:
                    del self._flights[key]

        def tell(event: E) -> None:
            flight.told.append(event)
            for listener in tuple(flight.listeners):
                listener(event)

        flight: _Flight[T, E] = _Flight(asyncio.get_running_loop().create_task(run()))
        self._flights[key] = flight
        return flight
