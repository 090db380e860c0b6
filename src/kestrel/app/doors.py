"""Opening a door on a port that a setting chooses, which is what helps when somebody else has the port."""

from contextlib import AsyncExitStack

from kestrel.base.errors import Conflict
from kestrel.http.server import Server


async def open_door(stack: AsyncExitStack, server: Server, setting: str) -> Server:
    """Start a server; `stack` stops it. Raises Conflict that names `setting` when the port is taken."""
    try:
        return await stack.enter_async_context(server)
    except Conflict as error:
        hint = f"find its owner with `ss -lntp`, or set {setting} to another port"
        raise Conflict(error.message, hint=hint) from error
