"""One pod's worker: looks, decides, acts and reports, each time something about the pod changed.

It sleeps until it is poked: by a change of the object, by an event of the runtime, by a probe's verdict, by the end of
an action, or by the one timer that the last plan asked for. Then it puts a `View` together, lets `sync.plan` decide,
begins the actions as tasks of their own, and hands the status to a writer that always writes the newest one only. The
worker itself never waits for an action, so nothing holds up noticing that a pod was deleted.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from kestrel.base.errors import Conflict, KestrelError, NotFound
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import eviction, finalize, images, lastwords, sources, start, status, stop, sync
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.backoff import Failure, doubling
from kestrel.kube.kubelet.config import sandbox_config
from kestrel.kube.kubelet.downward import Facts
from kestrel.kube.kubelet.env import needed
from kestrel.kube.kubelet.parts import Parts
from kestrel.kube.kubelet.podvolumes import MountError, PodVolumes
from kestrel.kube.kubelet.prober import Prober
from kestrel.kube.kubelet.say import Say
from kestrel.kube.kubelet.sync import ContainerMemory, Outcome, Plan, View
from kestrel.pods.model import PodContainer, PodRecord

log = logging.getLogger(__name__)

MOUNT_FIRST, MOUNT_LONGEST = 0.5, 120.0
SANDBOX_FIRST, SANDBOX_LONGEST = 1.0, 60.0
CONFIG_RETRY_LONGEST = 60.0
STATUS_PAUSE = 0.1
"""Seconds for which a status that only says that a pod is on its way may wait for a better one."""
MEMORY_WORDS = "it used more memory than its limit of {} bytes"


class Worker:
    """The state machine of one pod. `done` is called once, when the pod is gone from this node."""

    def __init__(self, parts: Parts, pod: JSONObject, done: Callable[["Worker"], None]) -> None:
        self.parts = parts
        self.pod = pod
        self.uid = pods.uid(pod)
        self.gone = False
        self._done = done
        self._say = Say(parts.recorder, pod)
        self._memory: dict[str, ContainerMemory] = {}
        self._volumes = PodVolumes(parts)
        self._volumes_ready = False
        self._volumes_failure: Failure | None = None
        self._outdated = False
        self._measuring: asyncio.Task[None] | None = None
        self._evicted: Outcome | None = None
        self._sandbox_failure: Failure | None = None
        self._outcome: Outcome | None = None
        self._messages: dict[str, str] = {}
        self._told: set[str] = set()
        self._actions: dict[str, asyncio.Task[None]] = {}
        self._deadlines: dict[str, float] = {}
        self._prober = Prober(parts.runtime, parts.clock, self.poke)
        self._bell = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._wanted_status: JSONObject | None = None
        self._written: JSONObject = {}
        """What was last written, to write nothing twice however a server rewrites it."""
        self._urgent = asyncio.Event()
        self._deleted: tuple[str, float] | None = None

    # What others call

    def begin(self) -> None:
        """Start to work."""
        self._task = asyncio.create_task(self._run(), name=f"pod {pods.namespace(self.pod)}/{pods.name(self.pod)}")
        self.poke()

    def take(self, pod: JSONObject) -> None:
        """Accept a newer state of the object; older ones, which a slow watch may bring, are dropped."""
        if pods.version(pod) >= pods.version(self.pod):
            renamed = _words(pod) != _words(self.pod)
            self.pod = self._say.pod = pod
            if renamed:
                self._renew_files()  # downwardAPI volumes show labels and annotations
            self.poke()

    def leave(self) -> None:
        """Accept that the API has no such pod any more."""
        self.gone = True
        self.poke()

    def poke(self) -> None:
        """Make the worker look again soon."""
        self._bell.set()

    def doubt(self) -> None:
        """Make the worker look again and, should anybody else have changed the status, mend it."""
        self._written = {}
        self.poke()

    def source_changed(self, resource: str, name: str) -> None:
        """Hear that a ConfigMap, Secret or claim changed; whoever waits for it or shows it acts at once."""
        wanted = self._volumes.sources(self.pod)
        wanted |= {("persistentvolumeclaims", claim) for claim in sources.claim_names(self.pod)}
        for spec in pods.every_container(self.pod):
            if (resource, name) in needed(spec):
                self._remember(spec["name"], failure=None)
        if (resource, name) in wanted:
            self._volumes_failure = None
            if resource != "persistentvolumeclaims":
                self._renew_files()
        self.poke()

    async def close(self) -> None:
        """Stop working and leave everything as it is: containers go on without the daemon."""
        own = (self._task, self._writer, self._measuring, *self._actions.values())
        tasks = [task for task in own if task is not None]
        if self._timer is not None:
            self._timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._prober.close()

    # The loop

    async def _run(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            try:
                await self._look()
            except Exception:
                log.exception("pod %s: looking again in 5 s", pods.title(self.pod))
                self._wake_in(5.0)

    async def _look(self) -> None:
        record = self.parts.runtime.pod(self.uid)
        await self._notice_ends(record)
        self._watch_running(record)
        view = self._view(record)
        decided = sync.plan(view)
        self._outcome = decided.outcome or self._outcome
        if decided.ending:
            self._abandon(leaving=view.gone or bool(self.pod["metadata"].get("deletionTimestamp")))
        for action in decided.actions:
            self._act(action)
        self._renew_tokens()
        self._tell_back_offs(view)
        self._report(self._view(record), decided)
        self._set_timer(decided)

    def _view(self, record: PodRecord) -> View:
        return View(
            pod=self.pod,
            record=record,
            now=self.parts.now(),
            memory=self._memory,
            health=self._prober.health,
            busy=frozenset(self._actions) - {"refresh"},
            volumes_ready=self._volumes_ready,
            volumes_failure=self._volumes_failure,
            sandbox_failure=self._sandbox_failure,
            gone=self.gone,
            deleted_at=self._deletion_seen(),
            evicted=self._evicted,
            messages=self._messages,
        )

    def _deletion_seen(self) -> float | None:
        """Return when this deletion, or its last change, came to our notice."""
        stamped = self.pod["metadata"].get("deletionTimestamp")
        if stamped is None:
            return None
        if self._deleted is None or self._deleted[0] != stamped:
            self._deleted = (stamped, self.parts.now())
        return self._deleted[1]

    def _set_timer(self, decided: Plan) -> None:
        moments = [at for at in (decided.wake_at, self._volumes.renew_at) if at is not None]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if moments:
            self._wake_in(min(moments) - self.parts.now())

    def _wake_in(self, seconds: float) -> None:
        # A little late rather than a little early: an early look would only set the timer again.
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0) + 0.002, self.poke)

    # Noticing

    async def _notice_ends(self, record: PodRecord) -> None:
        """Read the last words of containers that have ended, and tell of ends that need explaining."""
        for container in record.containers:
            if not container.exited or container.id in self._messages:
                continue
            self._prober.forget(container.id)
            spec = pods.container(self.pod, container.name)
            if spec is None:
                continue
            path = self.parts.settings.paths.last_words(self.uid, container.name, container.attempt)
            self._messages[container.id] = await lastwords.last_words(path, spec, container)
            self._explain(container, spec)

    def _explain(self, container: PodContainer, spec: JSONObject) -> None:
        if self._was_known(container):
            return
        if container.reason == "OOMKilled":
            limit = container.memory_limit
            why = MEMORY_WORDS.format(limit) if limit else "the node ran out of memory"
            self._say.warning("OOMKilling", f"Container {container.name} was killed: {why}", container=spec)
        elif container.reason == "ShimKilled":
            text = f"Container {container.name} ended with its sandbox: {container.message or 'the shim was killed'}"
            self._say.warning("SandboxKilled", text, container=spec)

    def _was_known(self, container: PodContainer) -> bool:
        """Whether this end is in the status already, as after a restart of the daemon."""
        before = pods.status_of(self.pod, container.name)
        ends = [(before.get(state) or {}).get("terminated") or {} for state in ("state", "lastState")]
        return any(str(end.get("containerID", "")).endswith(container.id) for end in ends)

    def _watch_running(self, record: PodRecord) -> None:
        running = {container.id for container in record.containers if container.running}
        for identity in self._prober.watched():
            if identity not in running:
                self._prober.forget(identity)
        if pods.deletion_deadline(self.pod) is not None or self.gone:
            return
        for container in record.containers:
            spec = pods.container(self.pod, container.name)
            # Probes begin when the postStart hook has ended.
            if container.running and spec is not None and f"start:{container.name}" not in self._actions:
                before = pods.status_of(self.pod, container.name)
                self._prober.watch(container, spec, self._facts(record).pod_ip, self._say, before=before)

    def _facts(self, record: PodRecord | None = None) -> Facts:
        record = record or self.parts.runtime.pod(self.uid)
        settings = self.parts.settings
        address = record.sandbox.address if record.sandbox else ""
        return Facts(
            node=settings.node,
            host_ip=settings.address,
            pod_ip=settings.address if pods.host_network(self.pod) else address,
            allocatable=self.parts.allocatable,
        )

    def _tell_back_offs(self, view: View) -> None:
        for spec in pods.every_container(self.pod):
            memory, newest = view.of(spec["name"]), view.record.newest(spec["name"])
            failure = memory.image_failure
            if failure is not None and failure.later and view.now >= failure.later_at:
                self._tell_once(
                    f"image {spec['name']} {failure.at}", "BackOff", f'Back-off pulling image "{spec["image"]}"', spec
                )
                self._tell_once(f"error {spec['name']} {failure.at}", "Failed", f"Error: {failure.later}", spec)
            if newest is not None and newest.exited and view.now < memory.restart.due(sync.ended_at(newest)):
                text = f"Back-off restarting failed container {spec['name']} in pod {pods.title(self.pod)}"
                self._tell_once(newest.id, "BackOff", text, spec)

    def _tell_once(self, key: str, reason: str, text: str, spec: JSONObject) -> None:
        if key not in self._told:
            self._told.add(key)
            self._say.warning(reason, text, container=spec)

    # Acting

    def _act(self, action: sync.Action) -> None:
        again = action.key in self._actions
        if isinstance(action, sync.StopContainer):
            if again and action.deadline > self._deadlines[action.key] - 0.5:
                return
            self._deadlines[action.key] = action.deadline
        elif again:
            return
        match action:
            case sync.MountVolumes():
                work = self._mount()
            case sync.RunSandbox():
                work = self._run_sandbox(action.attempt)
            case sync.EnsureImage():
                work = self._ensure_image(action.container)
            case sync.StartContainer():
                work = self._start(action)
            case sync.StopContainer():
                work = stop.stop(self.parts, self.pod, action, self._facts().pod_ip, self._say, again=again)
            case sync.StopSandbox():
                work = self.parts.runtime.stop_sandbox(action.id)
            case sync.Remove():
                remove = self.parts.runtime.remove_container
                work = (self.parts.runtime.remove_sandbox if action.what == "sandbox" else remove)(action.id)
            case sync.Finalize():
                work = self._finalize()
        self._begin(action.key, work, replacing=again)

    def _begin(self, key: str, work: Coroutine[Any, Any, None], *, replacing: bool = False) -> None:
        old = self._actions.get(key)
        if old is not None and not replacing:
            work.close()
            return
        if old is not None:
            old.cancel()
        task = asyncio.create_task(self._guarded(key, work), name=f"{key} of {pods.name(self.pod)}")
        self._actions[key] = task
        task.add_done_callback(lambda finished: self._ended(key, finished))

    async def _guarded(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except KestrelError as error:
            log.warning("pod %s: %s: %s", pods.title(self.pod), key, error)
            await asyncio.sleep(1.0)  # before the next look begins it again
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("pod %s: %s", pods.title(self.pod), key)
            await asyncio.sleep(5.0)

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        if self._actions.get(key) is task:
            del self._actions[key]
            self._deadlines.pop(key, None)
            self.poke()

    def _abandon(self, *, leaving: bool) -> None:
        """Let go of what is of no use to a pod that ends; a start goes on until it can be stopped properly."""
        for key, task in self._actions.items():
            if key.startswith("image:") or key in ("volumes", "refresh") or (leaving and self._is_hooking(key)):
                task.cancel()
        self._volumes.renew_at = None
        if self._measuring is not None:
            self._measuring.cancel()

    def _is_hooking(self, key: str) -> bool:
        """Whether a start has nothing left to do but its postStart hook."""
        if not key.startswith("start:"):
            return False
        newest = self.parts.runtime.pod(self.uid).newest(key.removeprefix("start:"))
        return newest is not None and newest.running

    def _remember(self, name: str, **changes: Any) -> None:
        self._memory[name] = replace(self._memory.get(name, ContainerMemory()), **changes)

    async def _mount(self) -> None:
        self._outdated = False
        try:
            await self._volumes.mount(self.pod, self._facts())
        except MountError as error:
            self._say.warning("FailedMount", str(error))
            times = (self._volumes_failure.times if self._volumes_failure else 0) + 1
            now = self.parts.now()
            retry = now + doubling(times, first=MOUNT_FIRST, longest=MOUNT_LONGEST)
            self._volumes_failure = Failure(reason="FailedMount", message=str(error), at=now, retry=retry, times=times)
            return
        self._volumes_ready, self._volumes_failure = True, None
        if eviction.limits(self.pod) and self._measuring is None:
            measuring = eviction.watch(lambda: self.pod, self.parts.settings.paths, self._evict)
            self._measuring = asyncio.create_task(measuring, name=f"volumes of {pods.name(self.pod)}")
        if self._outdated:
            self._renew_files()

    def _evict(self, reason: str) -> None:
        self._say.warning("Evicted", reason)
        self._evicted = Outcome(phase="Failed", reason="Evicted", message=reason)
        self.poke()

    def _renew_files(self) -> None:
        """Show in the volumes what has changed; also what changes while that, or the mounting, is under way."""
        self._outdated = True
        if self._volumes_ready:
            self._begin("refresh", self._refresh())

    async def _refresh(self) -> None:
        while self._outdated:
            self._outdated = False
            try:
                await self._volumes.refresh(self.pod, self._facts())
            except MountError as error:
                self._say.warning("FailedMount", str(error))

    def _renew_tokens(self) -> None:
        due = self._volumes.renew_at
        if due is not None and self.parts.now() >= due and self._volumes_ready:
            self._volumes.renew_at = self.parts.now() + 60  # unless the renewal says better
            self._renew_files()

    async def _run_sandbox(self, attempt: int) -> None:
        try:
            await self.parts.runtime.run_sandbox(sandbox_config(self.pod, attempt, self.parts.settings))
        except KestrelError as error:
            text = f"{error} ({error.hint})" if error.hint else str(error)
            self._say.warning("FailedCreatePodSandBox", f"Failed to create pod sandbox: {text}")
            now, before = self.parts.now(), self._sandbox_failure
            times = (before.times if before else 0) + 1
            retry = now + doubling(times, first=SANDBOX_FIRST, longest=SANDBOX_LONGEST)
            self._sandbox_failure = Failure(
                reason="CreatePodSandboxError", message=text, at=now, retry=retry, times=times
            )
            return
        self._sandbox_failure = None

    async def _ensure_image(self, name: str) -> None:
        spec = pods.container(self.pod, name)
        assert spec is not None
        before = self._memory.get(name, ContainerMemory()).image_failure
        try:
            credentials = await sources.pull_credentials(self.parts.client, self.pod)
            image = await images.ensure(self.parts.runtime, spec, self._say, credentials=credentials)
        except images.PullError as error:
            failure = images.failed(error, before, str(spec.get("image", "")), self.parts.now())
            self._remember(name, image=None, image_failure=failure)
            return
        self._remember(name, image=image, image_failure=None)

    async def _start(self, action: sync.StartContainer) -> None:
        name = action.container
        memory = self._memory.get(name, ContainerMemory())
        last = self.parts.runtime.pod(self.uid).newest(name)
        if last is not None and last.exited:
            restart = memory.restart.restarted(sync.ended_at(last), self.parts.now())
            self._remember(name, restart=restart)
        try:
            await start.start(self.parts, self.pod, action, self._volumes.ready, self._facts(), self._say)
        except start.StartError as error:
            now = self.parts.now()
            times = memory.failure.times + 1 if memory.failure else 1
            retry = now + doubling(times, first=2.0, longest=CONFIG_RETRY_LONGEST)
            failure = Failure(reason=error.reason, message=error.message, at=now, retry=retry, times=times)
            self._remember(name, failure=failure, restart=memory.restart)
            return
        # The next start asks for the image again: its policy may be Always, and it may have been removed.
        self._remember(name, failure=None, image=None)

    async def _finalize(self) -> None:
        record = self.parts.runtime.pod(self.uid)
        if not self.gone:
            view = self._view(record)
            await self._write(status.build(view, self._host(), outcome=self._outcome, ending=True))
        record = replace(record, name=pods.name(self.pod), namespace=pods.namespace(self.pod))
        await finalize.clean_up(self.parts.runtime, record, self.parts.settings.paths)
        if not self.gone:
            await finalize.let_go(self.parts.client, record.namespace, record.name, self.uid)
        self._done(self)

    # Reporting

    def _host(self) -> status.Host:
        return status.Host(self.parts.settings.address)

    def _report(self, view: View, decided: Plan) -> None:
        """Hand the newest status to the writer, which may be busy with the last one."""
        if self.gone or "finalize" in self._actions:
            return
        wanted = status.build(view, self._host(), outcome=self._outcome, ending=decided.ending)
        if wanted == self._written or not status.difference(self.pod.get("status") or {}, wanted):
            self._wanted_status = None
            return
        self._wanted_status = wanted
        if not _is_on_its_way(wanted):
            self._urgent.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_newest(), name=f"status of {pods.name(self.pod)}")

    async def _write_newest(self) -> None:
        delay = 0.1
        try:
            # Steps on the way to running come fast; who watches wants the last of them, and soon.
            await asyncio.wait_for(self._urgent.wait(), STATUS_PAUSE)
        except TimeoutError:
            pass
        while self._wanted_status is not None:
            self._urgent.clear()
            wanted, self._wanted_status = self._wanted_status, None
            try:
                await self._write(wanted)
                delay = 0.1
            except KestrelError as error:
                log.warning("pod %s: its status was not written: %s", pods.title(self.pod), error)
                self._wanted_status = self._wanted_status or wanted
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10.0)

    async def _write(self, wanted: JSONObject) -> None:
        """Write what differs, for this very pod and not for a later one of its name."""
        changes = status.difference(self.pod.get("status") or {}, wanted)
        if not changes:
            return
        patch = {"metadata": {"uid": self.uid}, "status": changes}
        try:
            written = await self.parts.client.patch(
                "pods", pods.name(self.pod), patch, pods.namespace(self.pod), subresource="status"
            )
        except (NotFound, Conflict):
            return  # it is gone, or another has taken its name; the watch will say so
        self._written = wanted
        self.take(written)


def _is_on_its_way(status: JSONObject) -> bool:
    """Whether nothing is to be told but that containers are being created."""
    states = [found["state"].get("waiting") for found in status["containerStatuses"]]
    quiet = all(state is not None and state["reason"] == "ContainerCreating" for state in states)
    return status["phase"] == "Pending" and quiet and "initContainerStatuses" not in status


def _words(pod: JSONObject) -> tuple[object, object]:
    """Return the labels and annotations of a pod, which may change while it runs."""
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")
