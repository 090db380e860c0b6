"""Verbs for the platform as a whole."""

from typing import Any

from kestrel.control.requests import DownRequest, Nothing, PruneRequest
from kestrel.control.services import Emit, Services, Verbs


async def status(services: Services, _request: Nothing, _emit: Emit) -> Any:
    """What runs, and what this machine withholds."""
    return services.platform.status()


async def df(services: Services, _request: Nothing, _emit: Emit) -> Any:
    """What takes how much room."""
    return await services.platform.usage()


async def prune(services: Services, request: PruneRequest, _emit: Emit) -> Any:
    """Remove what nothing uses."""
    return await services.platform.prune(everything=request.all)


async def down(services: Services, request: DownRequest, _emit: Emit) -> Any:
    """Stop the daemon, after this answer."""
    await services.platform.down(everything=request.all)
    return {}


VERBS: Verbs = {
    "status": (Nothing, status),
    "df": (Nothing, df),
    "prune": (PruneRequest, prune),
    "down": (DownRequest, down),
}
