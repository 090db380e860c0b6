"""One flight for many passengers: what is already being done is joined, not begun again.

Two pods that want the same image, or two images that share a layer, wait for one transfer. The work goes on as long
as one of them still wants it; when the last one is cancelled, so is the work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kestrel.images.model import Progress, Report

T = TypeVar("T")


@dataclass
class _Flight(Generic[T]):
    task: "asyncio.Task[T] | None" = None
    passengers: dict[object, Report] = field(default_factory=dict)

    def tell(self, progress: Progress) -> None:
        for report in tuple(self.passengers.values()):
            report(progress)


class Flights:
    """Work under way, by key. For one event loop."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[Any]] = {}

    async def join(self, key: Hashable, report: Report, work: Callable[[Report], Awaitable[T]]) -> T:
        """Do the work, or wait for the one who does; `report` hears of its progress from now on."""
        flight: _Flight[T] | None = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.ensure_future(self._fly(key, flight, work))
        seat = object()
        flight.passengers[seat] = report
        assert flight.task is not None
        try:
            return await asyncio.shield(flight.task)
        finally:
            del flight.passengers[seat]
            if not flight.passengers and not flight.task.done():
                self._flights.pop(key, None)
                flight.task.cancel()
                await asyncio.wait([flight.task])

    async def _fly(self, key: Hashable, flight: _Flight[T], work: Callable[[Report], Awaitable[T]]) -> T:
        try:
            return await work(flight.tell)
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]


async def together(work: "Iterable[Coroutine[Any, Any, object]]") -> None:
    """Do all at once; when one fails the others are cancelled and waited for, and its error is raised as it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [each for each in results if isinstance(each, Exception)]
    if failures:
        raise failures[0]
