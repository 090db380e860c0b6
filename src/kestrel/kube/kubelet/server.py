"""What the API server asks of the node: logs, exec, attach and port-forward of pods that run here.

The sentences of the errors are those kubectl's users know; they reach them word for word.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from kestrel.base.errors import FailedPrecondition, InvalidArgument, NotFound
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.parts import Parts
from kestrel.logs import LogOptions, render
from kestrel.logs.changes import Changes
from kestrel.pods.model import PodContainer, PodRecord

NANO = 1_000_000_000


class LogQuery(Protocol):
    """The query of `pods/log`, as `kube.apiserver.backends.LogOptions` has it."""

    @property
    def container(self) -> str:
        """Whose log."""
        ...

    @property
    def follow(self) -> bool:
        """Whether to go on until the container has ended."""
        ...

    @property
    def previous(self) -> bool:
        """Whether the log of the start before is wanted."""
        ...

    @property
    def timestamps(self) -> bool:
        """Whether lines begin with their time."""
        ...

    @property
    def tail_lines(self) -> int | None:
        """How many lines from the end."""
        ...

    @property
    def since_seconds(self) -> int | None:
        """How far back."""
        ...

    @property
    def since_time(self) -> datetime | None:
        """From when on."""
        ...

    @property
    def limit_bytes(self) -> int | None:
        """How much at most."""
        ...

    @property
    def stream(self) -> str:
        """All, Stdout or Stderr."""
        ...


class StreamQuery(Protocol):
    """The query of exec and attach, as `kube.apiserver.backends.StreamOptions` has it."""

    @property
    def container(self) -> str:
        """In or to which container."""
        ...

    @property
    def command(self) -> tuple[str, ...]:
        """What to run; empty for attach."""
        ...

    @property
    def stdin(self) -> bool:
        """Whether input is wanted."""
        ...

    @property
    def tty(self) -> bool:
        """Whether a terminal is wanted."""
        ...


class NodeServer:
    """Fulfils the API server's `NodeBackend` for the pods of one node."""

    def __init__(self, parts: Parts, changes: Changes) -> None:
        self._parts = parts
        self._changes = changes

    async def logs(self, pod: JSONObject, options: LogQuery) -> AsyncIterator[bytes]:
        """Return chunks of a container's log; with `follow` until the container has ended."""
        container = self._logged(pod, options.container, previous=options.previous)
        path = Path(container.log_path)
        wanted = LogOptions(
            tail=options.tail_lines,
            since=self._since(options),
            stream={"Stdout": "stdout", "Stderr": "stderr"}.get(options.stream, ""),
            follow=options.follow and container.running,
            timestamps=options.timestamps,
            limit=options.limit_bytes,
        )
        if not path.exists():
            raise NotFound(f"the log of container {container.name} in pod {pods.name(pod)} is gone")

        def ended() -> bool:
            now = next((c for c in self._record(pod).containers if c.id == container.id), None)
            return now is None or not now.running

        return render(path, wanted, ended=ended, changes=self._changes)

    async def exec(self, pod: JSONObject, options: StreamQuery) -> Any:
        """Start a process in a running container."""
        container = self._running(pod, options.container)
        if not options.command:
            raise InvalidArgument("you must specify at least one command for the container")
        return await self._parts.runtime.exec(container.id, options.command, tty=options.tty, stdin=options.stdin)

    async def attach(self, pod: JSONObject, options: StreamQuery) -> Any:
        """Connect to a container's own process."""
        container = self._running(pod, options.container)
        return await self._parts.runtime.attach(container.id)

    async def port_forward(self, pod: JSONObject, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection to a port of the pod."""
        sandbox = self._record(pod).sandbox
        if sandbox is None:
            raise FailedPrecondition(
                f"unable to forward port because pod is not running. Current status={pods.phase(pod)}"
            )
        return await self._parts.runtime.port_forward(sandbox.id, port)

    def _record(self, pod: JSONObject) -> PodRecord:
        return self._parts.runtime.pod(pods.uid(pod))

    def _running(self, pod: JSONObject, name: str) -> PodContainer:
        newest = self._record(pod).newest(name)
        if newest is None or not newest.running:
            state = "it has ended" if newest is not None and newest.exited else _state_words(pod, name)
            raise NotFound(f'container not found ("{name}")', hint=f"it is not running: {state}")
        return newest

    def _logged(self, pod: JSONObject, name: str, *, previous: bool) -> PodContainer:
        """Return the start of a container whose log is meant, as the pod's status counts them."""
        attempts = [c for c in self._record(pod).attempts(name) if c.running or c.exited]
        waiting = _waiting(pod, name)
        if previous:
            # A container that waits for its restart has its last end as `lastState`.
            past = attempts if attempts and attempts[0].exited and waiting else attempts[1:]
            if not past:
                raise InvalidArgument(f'previous terminated container "{name}" in pod "{pods.name(pod)}" not found')
            return past[0]
        if not attempts:
            reason = waiting or "ContainerCreating"
            if reason in ("ErrImagePull", "ImagePullBackOff"):
                reason = "trying and failing to pull image"
            raise InvalidArgument(
                f'container "{name}" in pod "{pods.name(pod)}" is waiting to start: {reason}',
                hint=f"see `kubectl describe pod {pods.name(pod)}`",
            )
        return attempts[0]

    def _since(self, options: LogQuery) -> int:
        if options.since_seconds is not None:
            return int((self._parts.now() - options.since_seconds) * NANO)
        if options.since_time is not None:
            return int(options.since_time.timestamp() * NANO)
        return 0


def _waiting(pod: JSONObject, name: str) -> str:
    waiting = (pods.status_of(pod, name).get("state") or {}).get("waiting") or {}
    return str(waiting.get("reason") or "")


def _state_words(pod: JSONObject, name: str) -> str:
    state = pods.status_of(pod, name).get("state") or {}
    return next(iter(state), "waiting")
