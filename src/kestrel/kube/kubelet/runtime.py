"""What the kubelet needs of this host: pods as sandboxes with containers, images, and streams into containers.

`pods.PodService` fulfils it. Looking (`pod`, `pods`) is immediate; acting is awaited; what happens by itself comes as
events. Stopping and removing what is already stopped or gone succeeds.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from kestrel.engine.model import ContainerConfig, SandboxConfig
from kestrel.pods.model import ImageInfo, PodContainer, PodEvent, PodRecord, PodSandbox


class PodRuntime(Protocol):
    """Pods on this host."""

    def pods(self) -> list[PodRecord]:
        """Return what there is of every pod."""
        ...

    def pod(self, uid: str) -> PodRecord:
        """Return what there is of one pod."""
        ...

    def events(self) -> AsyncIterator[PodEvent]:
        """Yield what happens; ends when events were lost, then look at everything again."""
        ...

    async def run_sandbox(self, config: SandboxConfig) -> PodSandbox:
        """Make a sandbox, ready for containers."""
        ...

    async def stop_sandbox(self, identity: str) -> None:
        """End a sandbox and what runs in it."""
        ...

    async def remove_sandbox(self, identity: str) -> None:
        """Forget a sandbox, with its containers."""
        ...

    async def create_container(self, config: ContainerConfig) -> PodContainer:
        """Create a container from an image that is present."""
        ...

    async def start_container(self, identity: str) -> PodContainer:
        """Start it; a command that cannot be run raises with the reason, and leaves the container exited."""
        ...

    async def stop_container(self, identity: str, *, grace: float) -> None:
        """Ask it to end and kill it after `grace` seconds."""
        ...

    async def remove_container(self, identity: str) -> None:
        """Remove it, running or not."""
        ...

    async def image(self, name: str) -> ImageInfo | None:
        """Return an image if it is present; raises InvalidArgument for what is no image name."""
        ...

    async def pull(self, name: str, *, credentials: Any = None) -> ImageInfo:
        """Fetch an image."""
        ...

    async def exec_sync(
        self, identity: str, argv: Sequence[str], *, timeout: float, limit: int = 16384
    ) -> tuple[int, bytes, bytes]:
        """Run a process in a container to its end; raises TimedOut."""
        ...

    async def exec(self, identity: str, argv: Sequence[str], *, tty: bool, stdin: bool) -> Any:
        """Start a process in a container and return its session."""
        ...

    async def attach(self, identity: str) -> Any:
        """Connect to a container's own process and return the session."""
        ...

    async def port_forward(self, sandbox: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port inside a sandbox."""
        ...
