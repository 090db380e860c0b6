"""Keeps asking: startup, liveness and readiness of every running container of a pod.

A probe is asked once every period, from `initialDelaySeconds` after the container's start; its verdict changes only
after `failureThreshold` or `successThreshold` answers of the same kind in a row. Until the startup probe has
succeeded the other two are not asked. One small task serves each probe; a container without probes costs nothing.
`verdict` is pure and is where the counting is.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from kestrel.base.clock import Clock
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import probes
from kestrel.kube.kubelet.probes import Subject
from kestrel.kube.kubelet.runtime import PodRuntime
from kestrel.kube.kubelet.say import Say
from kestrel.kube.kubelet.sync import Health
from kestrel.pods.model import PodContainer

KINDS = ("startup", "liveness", "readiness")


@dataclass(frozen=True, slots=True)
class Count:
    """A probe so far: its verdict, and how many answers of the same kind came last."""

    good: bool
    run: int = 0
    last: bool | None = None


def verdict(count: Count, answer: bool, probe: JSONObject) -> Count:
    """Return the count after one more answer."""
    run = count.run + 1 if count.last == answer else 1
    needed = int(probe.get("successThreshold") or 1) if answer else int(probe.get("failureThreshold") or 3)
    return Count(answer if run >= needed else count.good, run, answer)


class Prober:
    """The probes of one pod; `changed` is called whenever a verdict changed."""

    def __init__(self, runtime: PodRuntime, clock: Clock, changed: Callable[[], None]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._changed = changed
        self._health: dict[str, Health] = {}
        self._up: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    @property
    def health(self) -> dict[str, Health]:
        """What is known of each watched container, by id."""
        return self._health

    def watch(self, container: PodContainer, spec: JSONObject, address: str, say: Say, *, before: JSONObject) -> None:
        """Begin to ask a container that runs. `before` is its last written status: an adopted container keeps it."""
        if container.id in self._tasks:
            return
        known = str(before.get("containerID", "")).endswith(container.id)
        startup, readiness = spec.get("startupProbe"), spec.get("readinessProbe")
        self._health[container.id] = Health(
            started=not startup or (known and bool(before.get("started"))),
            ready=not readiness or (known and bool(before.get("ready"))),
        )
        self._up[container.id] = asyncio.Event()
        if self._health[container.id].started:
            self._up[container.id].set()
        subject = Subject(id=container.id, container=spec, address=address)
        began = (container.started or container.created).timestamp()
        self._tasks[container.id] = [
            asyncio.create_task(
                self._run(kind, spec[f"{kind}Probe"], subject, began, say), name=f"{kind} {container.name}"
            )
            for kind in KINDS
            if spec.get(f"{kind}Probe")
        ]

    def forget(self, identity: str) -> None:
        """Stop asking a container."""
        for task in self._tasks.pop(identity, ()):
            task.cancel()
        self._health.pop(identity, None)
        self._up.pop(identity, None)

    def watched(self) -> tuple[str, ...]:
        """Return the ids of the containers that are being asked."""
        return tuple(self._tasks)

    async def close(self) -> None:
        """Stop asking all containers."""
        tasks = [task for running in self._tasks.values() for task in running]
        for identity in self.watched():
            self.forget(identity)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, kind: str, probe: JSONObject, subject: Subject, began: float, say: Say) -> None:
        refusal = probes.unsupported(probe)
        if refusal:
            text = f"{kind.capitalize()} probe is ignored: {refusal}"
            say.warning("Unimplemented", text, container=subject.container)
            self._set(subject.id, **({"started": True} if kind == "startup" else {"ready": True}))
            return
        first = began + float(probe.get("initialDelaySeconds") or 0) - self._clock.now().timestamp()
        if first > 0:
            await asyncio.sleep(first)
        if kind != "startup":
            await self._up[subject.id].wait()
        count = Count(good=kind == "liveness" or (kind == "readiness" and self._health[subject.id].ready))
        while not (kind == "startup" and self._health[subject.id].started):
            count = await self._once(kind, probe, subject, count, say)
            await asyncio.sleep(float(probe.get("periodSeconds") or 10))

    async def _once(self, kind: str, probe: JSONObject, subject: Subject, count: Count, say: Say) -> Count:
        answer = await probes.ask(self._runtime, probe, subject, timeout=float(probe.get("timeoutSeconds") or 1))
        if not answer.good:
            text = f"{kind.capitalize()} probe failed: {answer.text}"
            say.warning("Unhealthy", text, container=subject.container)
        after = verdict(count, answer.good, probe)
        failed = not after.good and not after.last and after.run >= int(probe.get("failureThreshold") or 3)
        grace = probe.get("terminationGracePeriodSeconds")
        if kind == "readiness":
            self._set(subject.id, ready=after.good)
        elif failed:
            self._set(subject.id, failed=kind, grace=None if grace is None else float(grace))
        elif kind == "startup" and after.good:
            self._set(subject.id, started=True)
        return after

    def _set(self, identity: str, **changes: object) -> None:
        old = self._health.get(identity)
        if old is None:
            return
        new = replace(old, **changes)  # type: ignore[arg-type]  # names and types are those of Health's fields
        if new != old:
            self._health[identity] = new
            if new.started:
                self._up[identity].set()
            self._changed()
