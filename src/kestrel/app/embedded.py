"""The node inside a Python program of one's own: builds and images without a daemon or a door.

    async with kestrel.open_builder(kestrel.Settings(root=..., run=..., name="mine")) as builder:
        result = await builder.build(kestrel.BuildRequest(context=Path(".")))

It is the only one on its run directory, as a daemon is, and what it makes is there for the daemon that comes after.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from kestrel.app.node import Node, open_node
from kestrel.app.settings import Settings, read
from kestrel.base.errors import Conflict
from kestrel.base.files import locked, private_directory
from kestrel.build import Builder
from kestrel.engine.shims import Zygote
from kestrel.linux import cgroups


@asynccontextmanager
async def open_builder(settings: Settings | None = None) -> AsyncIterator[Builder]:
    """Give a builder with its store; None takes what `KESTREL_*` say. Raises Conflict beside a running daemon."""
    settings = settings or read()
    private_directory(settings.run)
    private_directory(settings.root)
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(locked(settings.run / "daemon.lock", blocking=False))
        except BlockingIOError:
            raise Conflict(
                f"a Kestrel runs on {settings.run}", hint="`kestrel down`, or choose another root and run directory"
            ) from None
        zygote = await Zygote.start(settings.run)
        stack.push_async_callback(zygote.close)
        node = await open_node(settings, zygote, stack)
        stack.push_async_callback(_leave, node, settings)
        yield node.builder


async def _leave(node: Node, settings: Settings) -> None:
    """Take the network and the control group away, unless containers of a daemon that was here before go on."""
    if node.network.endpoints() or node.engine.containers():
        return
    await node.network.down()
    with suppress(OSError):  # it is in use, then
        cgroups.remove(settings.name)
