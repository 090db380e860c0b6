"""The kubelet: hears which pods are bound to this node and keeps a worker for each.

Everything is an event: objects come through a watch, what happens to containers through the runtime's events. Nothing
polls; once in five minutes every worker is poked, in case an event was lost to a bug. When the daemon starts, the pods
that live on are found by their labels and go on under new workers; what belongs to no pod of the API any more is
removed.
"""

import asyncio
import logging
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from kestrel.base.clock import Clock, SystemClock
from kestrel.base.errors import KestrelError
from kestrel.kube.client import Client, JSONObject
from kestrel.kube.client.informer import Change, Informer
from kestrel.kube.client.recorder import Recorder
from kestrel.kube.kubelet import finalize, mounts, projection
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.config import Settings
from kestrel.kube.kubelet.env import CONFIG_MAP, SECRET, needed
from kestrel.kube.kubelet.node import Identity, Machine, NodeKeeper, allocatable
from kestrel.kube.kubelet.parts import Parts
from kestrel.kube.kubelet.paths import log_directory
from kestrel.kube.kubelet.runtime import PodRuntime
from kestrel.kube.kubelet.server import NodeServer
from kestrel.kube.kubelet.worker import Worker
from kestrel.logs.changes import Changes

log = logging.getLogger(__name__)

SAFETY_SECONDS = 300.0


class Kubelet:
    """The agent of one node; `server` is what the API server calls. Use `start` and `stop`."""

    def __init__(
        self,
        client: Client,
        runtime: PodRuntime,
        *,
        settings: Settings,
        identity: Identity,
        machine: Machine,
        root: Path,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._recorder = Recorder(client, "kubelet", host=settings.node, clock=clock)
        self._parts = Parts(
            client=client,
            runtime=runtime,
            recorder=self._recorder,
            clock=clock,
            settings=settings,
            allocatable=allocatable(machine, identity.pods),
        )
        self._changes = Changes()
        self.server = NodeServer(self._parts, self._changes)
        self._keeper = NodeKeeper(client, identity, machine, root, clock)
        self._pods = Informer(client, "pods", fields=f"spec.nodeName={settings.node}")
        self._workers: dict[str, Worker] = {}
        self._sources: dict[str, Informer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make the node known and take its pods up; returns when the pods that live on have been adopted."""
        paths = self._parts.settings.paths
        for directory in (paths.logs, paths.state, paths.volatile):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._recorder.start()
        await self._keeper.start()
        self._spawn(self._follow_runtime())
        self._pods.on_change(self._pod_changed)
        await self._pods.start()
        await self._remove_orphans()
        self._spawn(self._stay_safe())

    async def stop(self) -> None:
        """Let go of everything; containers run on."""
        for informer in (self._pods, *self._sources.values()):
            await informer.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))
        await self._keeper.stop()
        await self._recorder.stop()

    async def release_mounts(self) -> None:
        """Take our mounts off the host, for a platform that ends with all its pods; call after `stop`.

        What was in memory is gone then; the pods find everything else as it was.
        """
        await asyncio.to_thread(mounts.release, self._parts.settings.paths.state)

    async def settled(self) -> None:
        """Wait until all events told so far are written; for tests and for an orderly end."""
        await self._recorder.flush()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Pods

    def _pod_changed(self, change: Change) -> None:
        pod = change.object
        uid = pods.uid(pod)
        worker = self._workers.get(uid)
        if change.type == "DELETED":
            if worker is not None:
                worker.leave()
            return
        if worker is None:
            self._replace_namesake(pod)
            worker = self._workers[uid] = Worker(self._parts, pod, self._forget)
            self._follow_sources(pod)
            worker.begin()
        else:
            worker.take(pod)

    def _replace_namesake(self, pod: JSONObject) -> None:
        """A pod of this name with another identity is gone, even if the news of it was lost between two lists."""
        for worker in self._workers.values():
            if (pods.namespace(worker.pod), pods.name(worker.pod)) == (pods.namespace(pod), pods.name(pod)):
                worker.leave()

    def _forget(self, worker: Worker) -> None:
        self._workers.pop(worker.uid, None)
        self._spawn(self._close(worker))

    async def _close(self, worker: Worker) -> None:
        await asyncio.sleep(0)  # the caller is one of the worker's own tasks, and has to end first
        await worker.close()

    # What pods are made of

    def _follow_sources(self, pod: JSONObject) -> None:
        wanted = {resource for spec in pods.every_container(pod) for resource, _ in needed(spec)}
        for volume in pod["spec"].get("volumes") or ():
            wanted |= {resource for resource, _ in projection.needed(volume)}
        for resource in wanted & {CONFIG_MAP, SECRET}:
            if resource not in self._sources:
                self._sources[resource] = Informer(self._parts.client, resource)
                self._spawn(self._watch_sources(resource))
        if any("persistentVolumeClaim" in volume for volume in pod["spec"].get("volumes") or ()):
            self._follow_claims()

    async def _watch_sources(self, resource: str) -> None:
        informer = self._sources[resource]
        await informer.start()

        def changed(change: Change) -> None:
            namespace, name = change.key
            for worker in tuple(self._workers.values()):
                if pods.namespace(worker.pod) == namespace:
                    worker.source_changed(resource, name)

        informer.on_change(changed)

    def _follow_claims(self) -> None:
        resource = "persistentvolumeclaims"
        if resource not in self._sources:
            self._sources[resource] = Informer(self._parts.client, resource)
            self._spawn(self._watch_sources(resource))

    # What happens on this host

    async def _follow_runtime(self) -> None:
        while True:
            async for event in self._parts.runtime.events():
                worker = self._workers.get(event.uid)
                if worker is not None:
                    worker.poke()
                if event.action in ("exit", "remove"):
                    self._wake_followers(event.uid, event.container)
            log.warning("events of the runtime were lost; looking at every pod")
            self.poke()

    def _wake_followers(self, uid: str, container: str) -> None:
        for found in self._parts.runtime.pod(uid).containers:
            if found.id == container and found.log_path:
                self._changes.wake(Path(found.log_path).parent)

    def poke(self) -> None:
        """Make every worker look at its pod again, and at what the API says of it."""
        for worker in self._workers.values():
            worker.doubt()

    async def _stay_safe(self) -> None:
        while True:
            await asyncio.sleep(SAFETY_SECONDS)
            self.poke()

    # What belongs to nobody

    async def _remove_orphans(self) -> None:
        """Remove what this host has of pods that the API does not know, as after a forced deletion while away."""
        paths = self._parts.settings.paths
        for record in self._parts.runtime.pods():
            if record.uid not in self._workers:
                log.info("removing pod %s/%s (%s): it is not in the API", record.namespace, record.name, record.uid)
                try:
                    await finalize.clean_up(self._parts.runtime, record, paths)
                except KestrelError as error:
                    log.warning("pod %s could not be removed: %s", record.uid, error)
        await asyncio.to_thread(self._remove_stale_files)

    def _remove_stale_files(self) -> None:
        paths = self._parts.settings.paths
        known = [worker.pod for worker in tuple(self._workers.values())]
        alive = {pods.uid(pod) for pod in known}
        for directory in (paths.state, paths.volatile):
            for entry in directory.iterdir():
                if entry.name not in alive:
                    mounts.clean_up(entry.name, paths)
        logs = {log_directory(pods.namespace(pod), pods.name(pod), pods.uid(pod)) for pod in known}
        for entry in paths.logs.iterdir():
            if entry.name not in logs:
                shutil.rmtree(entry, ignore_errors=True)
