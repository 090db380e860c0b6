"""What pods need of the floors below, written down small: the engine and the images of this host."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kestrel.base.bus import Bus
from kestrel.engine.exec import ExecConfig
from kestrel.engine.model import Container, ContainerConfig, ContainerEvent, Sandbox, SandboxConfig
from kestrel.engine.shims import ExecResult, Session


class ContainerEngine(Protocol):
    """The part of `engine.Engine` that pods use."""

    @property
    def events(self) -> Bus[ContainerEvent]:
        """Everything that happens to sandboxes and containers."""
        ...

    def sandboxes(self) -> Sequence[Sandbox]:
        """Return all sandboxes."""
        ...

    def containers(self) -> Sequence[Container]:
        """Return all containers."""
        ...

    def sandbox(self, identity: str) -> Sandbox:
        """Return one sandbox; raises NotFound."""
        ...

    def container(self, wanted: str) -> Container:
        """Return one container; raises NotFound."""
        ...

    async def create_sandbox(self, config: SandboxConfig) -> Sandbox:
        """Make a sandbox, ready."""
        ...

    async def stop_sandbox(self, identity: str) -> None:
        """End a sandbox and what runs in it."""
        ...

    async def remove_sandbox(self, identity: str) -> None:
        """Stop and forget a sandbox."""
        ...

    async def create(self, config: ContainerConfig) -> Container:
        """Create a container from an image that is present."""
        ...

    async def start(self, wanted: str) -> Container:
        """Start a created container."""
        ...

    async def stop(self, wanted: str, *, timeout: float | None = None) -> Container:
        """Ask it to end, then kill it."""
        ...

    async def remove(self, wanted: str, *, force: bool = False) -> None:
        """Remove a container."""
        ...

    async def exec_sync(self, wanted: str, config: ExecConfig, *, timeout: float, limit: int = ...) -> ExecResult:
        """Run a process in a container to its end."""
        ...

    async def exec(self, wanted: str, config: ExecConfig) -> Session:
        """Start a process in a container."""
        ...

    async def attach(self, wanted: str) -> Session:
        """Connect to a container's own process."""
        ...

    async def port_forward(self, identity: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port inside the sandbox."""
        ...


class ImageStore(Protocol):
    """The part of `images.ImageService` that pods use."""

    async def resolve(self, name: str) -> Any:
        """Return the image of that name or digest; raises NotFound."""
        ...

    async def pull(self, ref: str, *, credentials: Any = None, progress: Callable[[Any], object] = ...) -> Any:
        """Fetch an image and make it runnable."""
        ...
