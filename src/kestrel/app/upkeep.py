"""What the store wants done now and then, when nobody waits for it: layers made durable, stale uploads thrown away.

A change (a pull, a build, a load) wakes the task; it lets a moment of quiet pass, so that the layers of a whole batch
are synced in one go and not while the next image is being written. Without changes it looks once an hour. Nothing
here may fail in a way that matters: what was not done is done the next time, and said in the log.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Self

log = logging.getLogger("kestrel")

_QUIET: Final = 5.0
_PATIENCE: Final = 60.0
_PERIOD: Final = 3600.0

Chore = Callable[[], Awaitable[object]]


class Upkeep:
    """Does `after_changes` some seconds after the last `changed`, and both kinds of chores every hour.

    A context manager; leaving waits for a chore that is under way.
    """

    def __init__(
        self,
        after_changes: Sequence[Chore],
        hourly: Sequence[Chore] = (),
        *,
        quiet: float = _QUIET,
        period: float = _PERIOD,
    ) -> None:
        self._after_changes = tuple(after_changes)
        self._hourly = tuple(hourly)
        self._quiet = quiet
        self._period = period
        self._changed = asyncio.Event()
        self._busy = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def changed(self) -> None:
        """Say that something was written; call from the event loop."""
        self._changed.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="upkeep")
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._busy:
            if self._task:
                self._task.cancel()
        if self._task:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._period
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            await self._calm()
            chores = self._after_changes
            if loop.time() >= due:
                chores += self._hourly
                due = loop.time() + self._period
            async with self._busy:
                for chore in chores:
                    await _attempt(chore)

    async def _calm(self) -> None:
        """Return once nothing has changed for a moment, or after a minute of changes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self._changed.is_set():
                    self._changed.clear()
                    await asyncio.sleep(self._quiet)


async def _attempt(chore: Chore) -> None:
    try:
        await chore()
    except Exception:
        log.exception("upkeep of the store")
