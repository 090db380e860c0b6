"""The platform: the node's parts, the cluster's, and the doors, opened in that order and closed in reverse."""

import asyncio
import logging
import os
import shutil
from contextlib import AsyncExitStack
from typing import Any, Self

from kestrel.app import kubeconfig
from kestrel.app.cluster import Cluster, open_cluster
from kestrel.app.doors import open_door
from kestrel.app.node import Node, open_node
from kestrel.app.probe import lacks
from kestrel.app.registry import LIMITS, listener
from kestrel.app.settings import Settings
from kestrel.app.usage import measure
from kestrel.base.errors import KestrelError
from kestrel.build.collect import Policy
from kestrel.control import Services, application
from kestrel.engine import ContainerState
from kestrel.engine.shims import Zygote
from kestrel.http.server import Server, Unix
from kestrel.http.tls import Authority
from kestrel.linux import cgroups

log = logging.getLogger("kestrel")


class Platform:
    """Everything of one Kestrel. `async with` starts it; leaving stops the daemon's part and ends no container."""

    def __init__(self, settings: Settings, zygote: Zygote, stop: asyncio.Event) -> None:
        self._settings = settings
        self._zygote = zygote
        self._stop = stop
        self._stack = AsyncExitStack()
        self._lacks: tuple[str, ...] = ()
        self._remove_all = False
        self._node: Node
        self._cluster: Cluster
        self._registry_url = ""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _open(self) -> None:
        settings = self._settings
        self._lacks = lacks()
        for lack in self._lacks:
            log.warning("%s", lack)
        node = self._node = await open_node(settings, self._zygote, self._stack)
        authority = Authority.load_or_create(settings.root / "kubernetes", common_name=settings.name)
        heard = Server(node.registry.handle, [listener(settings, node.registry, authority)], limits=LIMITS)
        registry = await open_door(self._stack, heard, "KESTREL_REGISTRY_PORT")
        self._registry_url = registry.addresses[0]
        self._cluster = await open_cluster(settings, node, authority, self._stack)
        services = Services(
            engine=node.engine,
            images=node.images,
            logins=node.logins,
            builder=node.builder,
            bootstrap=node.bootstrap,
            platform=self,
            registry=node.administration,
            log=log,
        )
        await self._stack.enter_async_context(Server(application(services), [Unix(path=settings.socket)]))

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        if self._remove_all:
            await asyncio.to_thread(self._remove_traces)

    def status(self) -> dict[str, Any]:
        """Say what runs, where it listens, and what this machine withholds."""
        settings, containers = self._settings, self._node.engine.containers()
        running = sum(c.state is ContainerState.RUNNING for c in containers)
        return {
            "running": True,
            "pid": os.getpid(),
            "root": str(settings.root),
            "run": str(settings.run),
            "log": str(settings.log),
            "kubernetes": self._cluster.access(),
            "registry": {
                "url": self._registry_url,
                "host": self._registry_url.partition("//")[2].replace("127.0.0.1", "localhost"),
            },
            "containers": {"running": running, "all": len(containers)},
            "lacks": [*self._lacks, *self._node.lacks, *self._node.engine.lacks, *self._node.network.notes],
        }

    async def usage(self) -> dict[str, Any]:
        """Say what takes how much room, to the byte, everything below the data root counted once."""
        return await asyncio.to_thread(measure, self._settings.root)

    async def prune(self, *, everything: bool) -> dict[str, Any]:
        """Remove ended containers, cached build steps, images that nobody names or uses, and what only they needed.

        With `everything` also images that have a name but no container, volumes, and all of the build cache.
        """
        removed = []
        for container in self._node.engine.containers():
            if container.state is ContainerState.EXITED and container.config.sandbox is None:
                await self._node.engine.remove(container.id)
                removed.append(f"container {container.config.name}")
        pruned = await self._node.images.prune(everything=everything)
        cache = await self._node.builder.collect(Policy(everything=everything))
        removed += [f"{each.held.kind} {each.held.name}" for each in cache.removed]
        removed += [f"image {digest}" for digest in pruned.images]
        removed += [f"volume {volume.name}" for volume in self._node.volumes.prune()] if everything else []
        return {"removed": removed, "bytes": pruned.freed + cache.freed}

    async def down(self, *, everything: bool) -> None:
        """Ask the daemon to stop once this is answered."""
        if everything:
            await self._cluster.stop()
            await self._node.engine.end_all()
            await self._node.network.down()
            self._remove_all = True
        asyncio.get_running_loop().call_soon(self._stop.set)

    def _remove_traces(self) -> None:
        """Take away what only an empty platform can: the cgroup above all, run-time files, our kubeconfig entries."""
        try:
            cgroups.remove(self._settings.name)
        except OSError as error:
            log.warning("cgroup %s could not be removed: %s", self._settings.name, error)
        for name in ("sandboxes", "build", "kubelet", "seccomp"):
            shutil.rmtree(self._settings.run / name, ignore_errors=True)
        try:
            kubeconfig.remove(self._settings.kubeconfig, self._settings.name)
        except KestrelError as error:
            log.warning("%s", error)
