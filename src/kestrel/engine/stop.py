"""Ending a process: ask with the stop signal, wait, then SIGKILL; or send any signal at once."""

import asyncio
import signal

from kestrel.base.errors import FailedPrecondition, NotFound
from kestrel.engine.model import Container, ContainerState
from kestrel.engine.parts import Parts
from kestrel.engine.signals import number
from kestrel.engine.wait import wait

AFTER_KILL = 10.0  # seconds until a process that ignores even SIGKILL (stuck in the kernel) is reported


async def stop(parts: Parts, wanted: str, *, timeout: float | None = None) -> Container:
    """Stop a container and return it; stopping one that has ended succeeds. `timeout` in seconds before SIGKILL."""
    container = parts.store.container(wanted)
    if container.state is not ContainerState.RUNNING:
        return container
    grace = container.config.stop_timeout if timeout is None else timeout
    ended = asyncio.create_task(wait(parts, container.id))
    try:
        if grace > 0:
            await kill(parts, container.id, stop_signal(container), missing_ok=True)
            await asyncio.wait([ended], timeout=grace)
        if not ended.done():
            await kill(parts, container.id, signal.SIGKILL, everything=True, missing_ok=True)
            await asyncio.wait([ended], timeout=AFTER_KILL)
        if not ended.done():
            raise FailedPrecondition(
                f"container {container.config.name} did not end after SIGKILL",
                hint="its process hangs in the kernel, often on a dead network filesystem; see `dmesg`",
            )
        return ended.result()
    finally:
        ended.cancel()


def stop_signal(container: Container) -> int:
    """The signal that asks this container to end: its own, else SIGTERM."""
    return number(container.config.stop_signal) if container.config.stop_signal else signal.SIGTERM


async def kill(
    parts: Parts, wanted: str, signal_number: int, *, everything: bool = False, missing_ok: bool = False
) -> None:
    """Send a signal to a container's first process, or to all of them."""
    container = parts.store.container(wanted)
    shim = parts.shim(container)
    if container.state is not ContainerState.RUNNING or shim is None:
        if missing_ok:
            return
        raise FailedPrecondition(f"container {container.config.name} is not running")
    try:
        await shim.kill(container.id, signal_number, everything=everything)
    except NotFound:
        if not missing_ok:
            raise FailedPrecondition(f"container {container.config.name} is not running") from None
