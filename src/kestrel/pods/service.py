"""Pods on this host: sandboxes and containers found by their labels, over the engine and the images.

It decides nothing: when to start, restart or stop is the kubelet's (or a real kubelet's, through CRI). It keeps an
index from pod to ids so that looking at one pod does not walk all of them; the engine's records stay the only truth.
As CRI asks, stopping and removing what is already stopped or gone succeeds.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from kestrel.base.errors import NotFound
from kestrel.engine.exec import ExecConfig
from kestrel.engine.model import ContainerConfig, ContainerEvent, SandboxConfig
from kestrel.engine.shims import Session
from kestrel.pods.model import POD_UID, ImageInfo, PodContainer, PodEvent, PodRecord, PodSandbox
from kestrel.pods.parts import ContainerEngine, ImageStore


class PodService:
    """What the kubelet holds. Call `load` once after the engine has recovered its containers."""

    def __init__(self, engine: ContainerEngine, images: ImageStore) -> None:
        self._engine = engine
        self._images = images
        self._sandboxes: dict[str, set[str]] = {}
        self._containers: dict[str, set[str]] = {}
        self._owners: dict[str, str] = {}

    def load(self) -> None:
        """Find the pods that the engine already has, as after a restart of the daemon."""
        for sandbox in self._engine.sandboxes():
            if uid := sandbox.config.labels.get(POD_UID):
                self._add(self._sandboxes, uid, sandbox.id)
        for container in self._engine.containers():
            if uid := container.config.labels.get(POD_UID):
                self._add(self._containers, uid, container.id)

    def pods(self) -> list[PodRecord]:
        """Return what there is of every pod."""
        return [self.pod(uid) for uid in sorted(self._sandboxes.keys() | self._containers.keys())]

    def pod(self, uid: str) -> PodRecord:
        """Return what there is of one pod; an empty record when there is nothing."""
        sandboxes = [PodSandbox.of(found) for found in self._found(self._sandboxes, uid, self._engine.sandbox)]
        containers = [PodContainer.of(found) for found in self._found(self._containers, uid, self._engine.container)]
        sandboxes.sort(key=lambda sandbox: (sandbox.attempt, sandbox.created), reverse=True)
        containers.sort(key=lambda container: (container.attempt, container.created), reverse=True)
        first = sandboxes[0] if sandboxes else None
        return PodRecord(
            uid=uid,
            name=first.name if first else "",
            namespace=first.namespace if first else "",
            sandboxes=tuple(sandboxes),
            containers=tuple(containers),
        )

    async def events(self) -> AsyncIterator[PodEvent]:
        """Yield what happens to pods; ends when the reader was too slow: look at everything and subscribe again."""
        async with self._engine.events.subscribe() as subscription:
            async for event in subscription:
                uid = self._owner(event)
                if uid is not None:
                    yield PodEvent(uid=uid, action=event.action, container=event.container)

    async def run_sandbox(self, config: SandboxConfig) -> PodSandbox:
        """Make a pod's sandbox, ready for containers."""
        sandbox = await self._engine.create_sandbox(config)
        self._add(self._sandboxes, config.labels[POD_UID], sandbox.id)
        return PodSandbox.of(sandbox)

    async def stop_sandbox(self, identity: str) -> None:
        """End a sandbox and every process in it; what is already stopped or gone is fine."""
        try:
            await self._engine.stop_sandbox(identity)
        except NotFound:
            return

    async def remove_sandbox(self, identity: str) -> None:
        """Forget a sandbox, with the containers that were in it; one that is gone is fine."""
        try:
            await self._engine.remove_sandbox(identity)
        except NotFound:
            pass
        self._drop(self._sandboxes, identity)

    async def create_container(self, config: ContainerConfig) -> PodContainer:
        """Create a container in its sandbox; the image has to be present."""
        container = await self._engine.create(config)
        self._add(self._containers, config.labels[POD_UID], container.id)
        return PodContainer.of(container)

    async def start_container(self, identity: str) -> PodContainer:
        """Start a created container. A command that cannot be run raises with the reason."""
        return PodContainer.of(await self._engine.start(identity))

    async def stop_container(self, identity: str, *, grace: float) -> None:
        """Ask a container to end, kill it after `grace` seconds; one that has ended or gone is fine."""
        try:
            await self._engine.stop(identity, timeout=grace)
        except NotFound:
            return

    async def remove_container(self, identity: str) -> None:
        """Remove a container, running or not; one that is gone is fine."""
        try:
            await self._engine.remove(identity, force=True)
        except NotFound:
            pass
        self._drop(self._containers, identity)

    async def image(self, name: str) -> ImageInfo | None:
        """Return the image of that name if it is present; raises InvalidArgument for what is no image name."""
        try:
            return _info(await self._images.resolve(name))
        except NotFound:
            return None

    async def pull(self, name: str, *, credentials: Any = None) -> ImageInfo:
        """Fetch an image."""
        return _info(await self._images.pull(name, credentials=credentials))

    async def exec_sync(
        self, identity: str, argv: Sequence[str], *, timeout: float, limit: int = 16384
    ) -> tuple[int, bytes, bytes]:
        """Run a process in a container to its end and return (exit code, stdout, stderr); TimedOut after `timeout`."""
        done = await self._engine.exec_sync(identity, ExecConfig(command=tuple(argv)), timeout=timeout, limit=limit)
        return done.exit_code, done.stdout, done.stderr

    async def exec(self, identity: str, argv: Sequence[str], *, tty: bool, stdin: bool) -> Session:
        """Start a process in a container and return its streams."""
        return await self._engine.exec(identity, ExecConfig(command=tuple(argv), tty=tty, stdin=stdin))

    async def attach(self, identity: str) -> Session:
        """Connect to the streams of a container's own process."""
        return await self._engine.attach(identity)

    async def port_forward(self, sandbox: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection to the loopback address inside a sandbox."""
        return await self._engine.port_forward(sandbox, port)

    def _owner(self, event: ContainerEvent) -> str | None:
        known = self._owners.get(event.container) or self._owners.get(event.sandbox)
        if known is None and event.action == "create" and event.container:
            known = self._engine.container(event.container).config.labels.get(POD_UID)
        return known

    def _add(self, index: dict[str, set[str]], uid: str, identity: str) -> None:
        index.setdefault(uid, set()).add(identity)
        self._owners[identity] = uid

    def _drop(self, index: dict[str, set[str]], identity: str) -> None:
        uid = self._owners.pop(identity, None)
        if uid is not None and uid in index:
            index[uid].discard(identity)
            if not index[uid]:
                del index[uid]

    def _found(self, index: dict[str, set[str]], uid: str, look: Any) -> list[Any]:
        found = []
        for identity in tuple(index.get(uid, ())):
            try:
                found.append(look(identity))
            except NotFound:
                self._drop(index, identity)
        return found


def _info(image: Any) -> ImageInfo:
    defaults = image.config.config
    return ImageInfo(
        id=str(image.id),
        digest=str(image.digest),
        names=tuple(str(name) for name in image.names),
        size=image.size,
        user=defaults.user or "",
        stop_signal=defaults.stop_signal or "",
    )
