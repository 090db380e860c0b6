"""A `PodRuntime` in memory: for what a kubelet decides and writes, not for what the kernel does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kestrel.base.bus import Bus
from kestrel.base.clock import Clock, SystemClock
from kestrel.base.errors import InvalidArgument, KestrelError, NotFound, TimedOut, Unavailable
from kestrel.engine.model import ContainerConfig, ContainerState, SandboxConfig
from kestrel.pods.model import (
    ATTEMPT,
    CONTAINER_NAME,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    SANDBOX_ATTEMPT,
    ImageInfo,
    PodContainer,
    PodEvent,
    PodRecord,
    PodSandbox,
)


class MemoryRuntime:
    """Containers that run until somebody says `exit`; images that are there, or come by `pull`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.bus: Bus[PodEvent] = Bus()
        self.sandboxes: dict[str, PodSandbox] = {}
        self.containers: dict[str, PodContainer] = {}
        self.configs: dict[str, ContainerConfig] = {}
        self.sandbox_configs: dict[str, SandboxConfig] = {}
        self.images = {"busybox"}
        """Names of the images that are here."""
        self.pullable: set[str] = set()
        """Names of the images that a pull would bring."""
        self.start_errors: dict[str, KestrelError] = {}
        """What starting the container of that name raises."""
        self.sandbox_errors: list[KestrelError] = []
        """What the next sandboxes raise."""
        self.execs: dict[tuple[str, ...], tuple[int, bytes, bytes]] = {}
        """What a command answers; (0, nothing, nothing) unless it is here. Exit code -1 hangs."""
        self.calls: list[tuple[object, ...]] = []
        self.stubborn: set[str] = set()
        """Names of containers that ignore the stop signal."""
        self._number = 0

    def _tell(self, uid: str, action: str, container: str = "") -> None:
        self.bus.publish(PodEvent(uid=uid, action=action, container=container))

    def pods(self) -> list[PodRecord]:
        """See PodRuntime."""
        return [self.pod(uid) for uid in {s.uid for s in self.sandboxes.values()}]

    def pod(self, uid: str) -> PodRecord:
        """See PodRuntime."""
        sandboxes = sorted((s for s in self.sandboxes.values() if s.uid == uid), key=lambda s: s.attempt, reverse=True)
        mine = [c for i, c in self.containers.items() if self.configs[i].labels[POD_UID] == uid]
        mine.sort(key=lambda c: c.attempt, reverse=True)
        first = sandboxes[0] if sandboxes else None
        return PodRecord(
            uid=uid, name=first.name if first else "", namespace=first.namespace if first else "",
            sandboxes=tuple(sandboxes), containers=tuple(mine),
        )  # fmt: skip

    async def events(self) -> AsyncIterator[PodEvent]:
        """See PodRuntime."""
        async with self.bus.subscribe() as subscription:
            async for event in subscription:
                yield event

    async def run_sandbox(self, config: SandboxConfig) -> PodSandbox:
        """See PodRuntime."""
        await asyncio.sleep(0)
        if self.sandbox_errors:
            raise self.sandbox_errors.pop(0)
        self._number += 1
        self.calls.append(("sandbox", config.name))
        made = PodSandbox(
            id=f"sandbox{self._number}", uid=config.labels[POD_UID], name=config.labels[POD_NAME],
            namespace=config.labels[POD_NAMESPACE], attempt=int(config.annotations[SANDBOX_ATTEMPT]), ready=True,
            created=self.clock.now(), address=f"127.0.0.{self._number + 1}",
        )  # fmt: skip
        self.sandboxes[made.id] = made
        self.sandbox_configs[made.id] = config
        return made

    async def stop_sandbox(self, identity: str) -> None:
        """See PodRuntime."""
        if identity in self.sandboxes:
            self.kill_shim(identity, reason="")

    def kill_shim(self, identity: str, reason: str = "the shim was killed") -> None:
        """End a sandbox and what runs in it, as when its shim dies."""
        for container in list(self.containers.values()):
            if container.sandbox == identity and container.running:
                self.exit(container.id, 137, reason="ShimKilled", message=reason)
        self.sandboxes[identity] = replace(self.sandboxes[identity], ready=False, address="", reason=reason)
        self._tell(self.sandboxes[identity].uid, "sandbox-stop")

    async def remove_sandbox(self, identity: str) -> None:
        """See PodRuntime."""
        self.sandboxes.pop(identity, None)
        for container in [c for c in self.containers.values() if c.sandbox == identity]:
            self.containers.pop(container.id)

    async def create_container(self, config: ContainerConfig) -> PodContainer:
        """See PodRuntime."""
        assert config.sandbox is not None
        self._number += 1
        identity = f"container{self._number}"
        labels = config.labels
        self.configs[identity] = config
        made = PodContainer(
            id=identity, name=labels[CONTAINER_NAME], attempt=int(config.annotations[ATTEMPT]), sandbox=config.sandbox,
            state=ContainerState.CREATED, created=self.clock.now(), image=config.image, image_id=config.image,
            image_digest="sha256:" + "d" * 64, log_path=config.log_path, memory_limit=config.resources.memory,
        )  # fmt: skip
        self.containers[identity] = made
        self.calls.append(("create", made.name))
        return made

    async def start_container(self, identity: str) -> PodContainer:
        """See PodRuntime."""
        container = self.containers[identity]
        self.calls.append(("start", container.name))
        error = self.start_errors.get(container.name)
        if error is not None:
            self.exit(identity, 128, reason="ContainerCannotRun", message=str(error), started=False)
            raise error
        Path(container.log_path).write_bytes(b"2026-01-02T03:04:05Z stdout F hello\n")
        self.containers[identity] = replace(container, state=ContainerState.RUNNING, started=self.clock.now())
        self._tell(self.configs[identity].labels[POD_UID], "start", identity)
        return self.containers[identity]

    def exit(self, identity: str, code: int = 0, *, reason: str = "", message: str = "", started: bool = True) -> None:
        """End a container."""
        container = self.containers[identity]
        self.containers[identity] = replace(
            container, state=ContainerState.EXITED, finished=self.clock.now(), exit_code=code, message=message,
            reason=reason or ("Completed" if code == 0 else "Error"), started=container.started if started else None,
        )  # fmt: skip
        self._tell(self.configs[identity].labels[POD_UID], "exit", identity)

    async def stop_container(self, identity: str, *, grace: float) -> None:
        """See PodRuntime."""
        container = self.containers.get(identity)
        if container is None or not container.running:
            return
        self.calls.append(("stop", container.name, round(grace)))
        if container.name in self.stubborn:
            await asyncio.sleep(grace)
            self.exit(identity, 137)
        elif self.containers[identity].running:
            self.exit(identity, 143)

    async def remove_container(self, identity: str) -> None:
        """See PodRuntime."""
        self.containers.pop(identity, None)

    async def image(self, name: str) -> ImageInfo | None:
        """See PodRuntime."""
        if " " in name:
            raise InvalidArgument(f"invalid reference format: {name!r}")
        return self._info(name) if name in self.images else None

    def _info(self, name: str) -> ImageInfo:
        return ImageInfo(id="sha256:" + "a" * 64, digest="sha256:" + "d" * 64, names=(name,), size=1234)

    async def pull(self, name: str, *, credentials: Any = None) -> ImageInfo:
        """See PodRuntime."""
        self.calls.append(("pull", name, credentials))
        if name not in self.pullable:
            raise Unavailable("cannot reach registry example.test: connection refused")
        self.images.add(name)
        return self._info(name)

    async def exec_sync(
        self, identity: str, argv: Sequence[str], *, timeout: float, limit: int = 16384
    ) -> tuple[int, bytes, bytes]:
        """See PodRuntime; answers are those of `execs`, cut at `limit`."""
        self.calls.append(("exec", self.containers[identity].name, tuple(argv)))
        answer = self.execs.get(tuple(argv), (0, b"", b""))
        if answer[0] < 0:
            await asyncio.sleep(timeout)
            raise TimedOut("timed out")
        return answer[0], answer[1][:limit], answer[2][:limit]

    async def exec(self, identity: str, argv: Sequence[str], *, tty: bool, stdin: bool) -> Any:
        """Return what was asked, in place of a session."""
        return ("exec", identity, tuple(argv), tty, stdin)

    async def attach(self, identity: str) -> Any:
        """Return what was asked, in place of a session."""
        return ("attach", identity)

    async def port_forward(self, sandbox: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Refuse: nothing listens here."""
        raise NotFound(f"{sandbox}:{port}")

    def named(self, name: str) -> PodContainer:
        """Return the newest start of a container."""
        return max((c for c in self.containers.values() if c.name == name), key=lambda c: c.attempt)
