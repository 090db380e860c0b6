"""`Engine`: the object that doors, pods and builds hold. Each method is one verb; each verb has a file of its own."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Self

from kestrel.archive.writer import Sink
from kestrel.base.bus import Bus
from kestrel.base.clock import Clock, SystemClock
from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition, KestrelError
from kestrel.engine import commit, create, exec, explain, recovery, remove, sandbox, start, step, stop, wait
from kestrel.engine.exec import ExecConfig
from kestrel.engine.explain import Explained
from kestrel.engine.model import (
    Container,
    ContainerConfig,
    ContainerEvent,
    Resources,
    Sandbox,
    SandboxConfig,
)
from kestrel.engine.parts import Parts, Settings
from kestrel.engine.shims import ExecResult, Session, Shim, Zygote
from kestrel.engine.spec import resources
from kestrel.engine.step import Output, Step
from kestrel.engine.store import Store
from kestrel.images import Image, ImageService
from kestrel.network import NetworkService
from kestrel.snapshots import Snapshotter
from kestrel.volumes import VolumeService

log = logging.getLogger(__name__)
OUTPUT_LIMIT = 16 * 1024 * 1024
"""Bytes of each stream that `exec_sync` keeps, as CRI's ExecSync (CVE-2022-31030)."""


class Engine:
    """Containers and sandboxes of this machine.

    `async with Engine(...)` adopts what is alive; leaving it lets go of everything and ends nothing.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        images: ImageService,
        snapshots: Snapshotter,
        network: NetworkService,
        volumes: VolumeService,
        zygote: Zygote,
        clock: Clock | None = None,
    ) -> None:
        self._parts = Parts(
            settings=settings,
            store=Store(database),
            images=images,
            snapshots=snapshots,
            network=network,
            volumes=volumes,
            zygote=zygote,
            clock=clock or SystemClock(),
        )
        self._undertaker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        exits = self.events.subscribe(lambda event: event.action == "exit")
        self._undertaker = asyncio.create_task(remove.bury(self._parts, exits), name="undertaker")
        await self._parts.users.probe(self._parts.zygote, self._parts.settings.root)
        await recovery.recover(self._parts)
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._parts.watchers.values(), *([self._undertaker] if self._undertaker else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shim in self._parts.shims.values():
            await shim.close()
        self._parts.users.close()

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this machine withholds from containers, and what that costs."""
        missing = self._parts.users.missing
        return (f"{missing}: root of a container is root of this machine, held by its rights alone",) if missing else ()

    @property
    def events(self) -> Bus[ContainerEvent]:
        """What happens, as it happens."""
        return self._parts.events

    # Sandboxes

    async def create_sandbox(self, config: SandboxConfig) -> Sandbox:
        """Make a sandbox; it is ready when this returns."""
        return await sandbox.create(self._parts, sandbox.planned(self._parts, config))

    async def stop_sandbox(self, identity: str) -> None:
        """End a sandbox and all that runs in it."""
        await sandbox.stop(self._parts, identity)

    async def remove_sandbox(self, identity: str) -> None:
        """Stop and forget a sandbox and its containers."""
        await sandbox.stop(self._parts, identity)
        for container in self._parts.store.containers_of(identity):
            await remove.remove(self._parts, container.id, force=True)
        await sandbox.remove(self._parts, identity)

    def sandbox(self, identity: str) -> Sandbox:
        """Return a sandbox by id. Raises NotFound."""
        return self._parts.store.sandbox(identity)

    def sandboxes(self) -> list[Sandbox]:
        """Return all sandboxes."""
        return list(self._parts.store.sandboxes.values())

    def find_sandbox(self, identity: str) -> Sandbox | None:
        """Return a sandbox by id, or None."""
        return self._parts.store.sandboxes.get(identity)

    # Containers

    async def create(self, config: ContainerConfig) -> Container:
        """Create a container from an image that is present."""
        return await create.create(self._parts, config)

    async def start(self, wanted: str) -> Container:
        """Start a container and return it."""
        return await start.start(self._parts, wanted)

    async def start_attached(self, wanted: str) -> Session:
        """Start a container and return a session that sees its output from the first byte."""
        return await start.start_attached(self._parts, wanted)

    async def stop(self, wanted: str, *, timeout: float | None = None) -> Container:
        """Ask it to end, then make it; returns it ended."""
        return await stop.stop(self._parts, wanted, timeout=timeout)

    async def kill(self, wanted: str, number: int) -> None:
        """Send a signal to its first process."""
        await stop.kill(self._parts, wanted, number)

    async def wait(self, wanted: str) -> Container:
        """Return it when it has ended."""
        return await wait.wait(self._parts, wanted)

    async def remove(self, wanted: str, *, force: bool = False) -> None:
        """Remove it and all that it wrote."""
        await remove.remove(self._parts, wanted, force=force)

    async def export(self, wanted: str, sink: Sink) -> None:
        """Write its root filesystem as a tar; `sink` is written to in a thread."""
        await commit.export(self._parts, wanted, sink)

    async def commit(self, wanted: str, names: Iterable[str], *, author: str = "", comment: str = "") -> Image:
        """Make an image of it as it is now."""
        return await commit.commit(self._parts, wanted, names, author=author, comment=comment)

    def container(self, wanted: str) -> Container:
        """Return a container by name, id or prefix. Raises NotFound."""
        return self._parts.store.container(wanted)

    def find(self, identity: str) -> Container | None:
        """Return a container by its whole id, or None."""
        return self._parts.store.containers.get(identity)

    def containers(self) -> list[Container]:
        """Return all containers."""
        return list(self._parts.store.containers.values())

    async def explain(self, wanted: str) -> list[Explained]:
        """Say in plain words what a container is made of and may do."""
        return await explain.explain(self._parts, wanted)

    async def explain_new(self, config: ContainerConfig) -> list[Explained]:
        """Say the same of one that `create` would make."""
        return await explain.explain_new(self._parts, config)

    # Inside a container

    async def exec(self, wanted: str, config: ExecConfig) -> Session:
        """Start a second process and return its streams."""
        return await exec.open_session(self._parts, wanted, config)

    async def exec_sync(
        self, wanted: str, config: ExecConfig, *, timeout: float, limit: int = OUTPUT_LIMIT
    ) -> ExecResult:
        """Run a second process to its end. Raises TimedOut after `timeout` seconds."""
        return await exec.sync(self._parts, wanted, config, timeout=timeout, limit=limit)

    async def attach(self, wanted: str) -> Session:
        """Connect to the streams of a running container's own process."""
        return await start.attach(self._parts, self._parts.store.container(wanted))

    async def reopen_log(self, wanted: str) -> None:
        """Make the shim open the log file anew, after someone has moved it away."""
        container = self._parts.store.container(wanted)
        await self._shim(container).reopen_log(container.id)

    async def update(self, wanted: str, limits: Resources) -> None:
        """Change the limits of a running container."""
        container = self._parts.store.container(wanted)
        await self._shim(container).update(container.id, resources(limits))

    async def port_forward(self, identity: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port on the loopback address inside a sandbox."""
        shim = self._parts.shims.get(identity)
        if shim is None:
            raise FailedPrecondition(f"sandbox {identity[:12]} is not running")
        return await shim.dial(port)

    async def run_step(self, wanted: Step, output: Output) -> tuple[int, range]:
        """Run one command in a root filesystem of the caller's, as a build does; returns what `step.run` does."""
        return await step.run(self._parts, wanted, output)

    def enter_step(self, wanted: Step) -> AbstractAsyncContextManager[Session]:
        """Run one command as `run_step` does, with its streams to read and write."""
        return step.entered(self._parts, wanted)

    async def end_all(self) -> None:
        """End and forget every sandbox; containers stay as records of what ran."""
        results = await asyncio.gather(
            *(sandbox.remove(self._parts, identity) for identity in list(self._parts.store.sandboxes)),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, KestrelError):
                log.warning("a sandbox could not be removed: %s", result)

    def _shim(self, container: Container) -> Shim:
        shim = self._parts.shim(container)
        if shim is None:
            raise FailedPrecondition(f"container {container.config.name} is not running")
        return shim
