"""Removal and its order: process, sandbox, files, record. What fails half-way can be removed again."""

import asyncio
import shutil

from kestrel.base.bus import Subscription
from kestrel.base.errors import Conflict, NotFound
from kestrel.engine import sandbox as sandboxes
from kestrel.engine.model import Container, ContainerEvent, ContainerState
from kestrel.engine.parts import Parts


async def remove(parts: Parts, wanted: str, *, force: bool = False) -> None:
    """Remove a container and all that it wrote. Raises Conflict when it runs and `force` is not given."""
    container = parts.store.container(wanted)
    async with parts.locks[container.id]:
        container = parts.store.containers.get(container.id) or _missing(wanted)
        if container.state is ContainerState.RUNNING and not force:
            raise Conflict(
                f"container {container.config.name} is running",
                hint=f"stop it first, or use `kestrel rm --force {container.config.name}`",
            )
        await _end(parts, container)
        await forget(parts, container)


async def _end(parts: Parts, container: Container) -> None:
    if container.config.sandbox is None:
        if container.sandbox in parts.store.sandboxes:
            await sandboxes.remove(parts, container.sandbox)
        return
    shim = parts.shim(container)
    if shim is not None and (container.pid or container.state is not ContainerState.CREATED):
        try:
            await shim.delete(container.id, force=True)
        except NotFound:
            pass  # it was never started, or an earlier removal came this far


async def forget(parts: Parts, container: Container) -> None:
    """Remove the files and then the record of a container that has no process."""
    await asyncio.to_thread(_remove_files, parts, container)
    parts.store.drop_container(container.id)
    parts.locks.pop(container.id, None)
    parts.tell("remove", container.sandbox, container.id)


def _remove_files(parts: Parts, container: Container) -> None:
    parts.snapshots.remove(container.id)
    shutil.rmtree(parts.container_directory(container.id), ignore_errors=True)


async def bury(parts: Parts, exits: Subscription[ContainerEvent]) -> None:
    """For each exit, end the sandbox of a container that has one of its own; with `--rm` remove the container too.

    A task of its own, because an exit is learnt inside the watcher of that very sandbox.
    """
    running: set[asyncio.Task[None]] = set()
    async with exits:
        async for event in exits:
            container = parts.store.containers.get(event.container)
            if container is not None and container.config.sandbox is None:
                task = asyncio.create_task(settle(parts, container), name=f"bury-{container.id[:12]}")
                running.add(task)
                task.add_done_callback(running.discard)


async def settle(parts: Parts, container: Container) -> None:
    """End the sandbox of an ended container that has one of its own, and with `--rm` the container; twice is fine."""
    async with parts.locks[container.id]:
        latest = parts.store.containers.get(container.id)
        if latest is None or latest.state is not ContainerState.EXITED:
            return
        if container.sandbox in parts.store.sandboxes:
            await sandboxes.remove(parts, container.sandbox)
        if container.config.auto_remove:
            await forget(parts, container)


def _missing(wanted: str) -> Container:
    raise NotFound(f"no such container: {wanted}")
