"""Blocking work beside the event loop that has ended when whoever waits for it goes on, cancelled or not.

`asyncio.to_thread` leaves its thread behind when it is cancelled: what the thread reads would be closed under it, and
what it makes would come to be after somebody has cleaned up.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def finished(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking function in a thread, to its end even when cancelled; CancelledError is raised then."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen: the cancellation is what counts
        raise
