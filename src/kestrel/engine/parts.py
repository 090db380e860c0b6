"""What the engine's verbs work with: the parts below it, and what is alive now."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from kestrel.base.bus import Bus
from kestrel.base.clock import Clock
from kestrel.base.ids import short
from kestrel.engine.model import Container, ContainerEvent, Sandbox
from kestrel.engine.shims import Shim, Zygote
from kestrel.engine.store import Store
from kestrel.engine.users import Mapper
from kestrel.images import ImageService
from kestrel.network import NetworkService
from kestrel.snapshots import Snapshotter
from kestrel.volumes import VolumeService


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the engine keeps what lasts (`root`) and what a reboot may take (`run`), and the cgroup all is below."""

    root: Path
    run: Path
    cgroup: str = "kestrel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a verb may touch. `shims` holds the live ones; `ending` the sandboxes that were told to stop."""

    settings: Settings
    store: Store
    images: ImageService
    snapshots: Snapshotter
    network: NetworkService
    volumes: VolumeService
    zygote: Zygote
    clock: Clock
    users: Mapper = field(default_factory=Mapper)
    events: Bus[ContainerEvent] = field(default_factory=Bus)
    shims: dict[str, Shim] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    watchers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def sandbox_directory(self, sandbox: str) -> Path:
        """Where the shim's socket and the sandbox's hosts and resolv.conf are; gone after a reboot."""
        return self.settings.run / "sandboxes" / short(sandbox)

    def container_directory(self, container: str) -> Path:
        """Where a container's spec, log and exit file are."""
        return self.settings.root / "containers" / container

    def sandbox_cgroup(self, sandbox: Sandbox) -> str:
        """The cgroup of a sandbox, relative to every controller's root."""
        return f"{self.settings.cgroup}/{sandbox.config.cgroup_parent or 'pods'}/{short(sandbox.id)}"

    def tell(self, action: str, sandbox: str, container: str = "", exit_code: int | None = None) -> None:
        """Publish one event."""
        self.events.publish(
            ContainerEvent(
                action=action, sandbox=sandbox, container=container, exit_code=exit_code, moment=self.clock.now()
            )
        )

    def shim(self, container: Container) -> Shim | None:
        """The shim that serves a container's sandbox, if it lives."""
        return self.shims.get(container.sandbox)
