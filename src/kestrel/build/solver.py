"""Runs a plan: each step once its inputs are there, at the same time as whatever does not depend on it.

For a step: the layers below it, then its key, then the cache; only on a miss does anything run, and then once for
all builds that are after the same key (`flights`). The result is a list of layers, the bottom first.

The first failure cancels what else is running, and what runs cleans up before the failure is told.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kestrel.base.errors import KINDS, InvalidArgument, KestrelError, NotFound
from kestrel.build.cache import Cache, Layer, Slot, StepRecord, key_of
from kestrel.build.digests import FileDigests
from kestrel.build.events import Done, Emit, Event, Failed, Reused, Started, Warned
from kestrel.build.executor import Limits
from kestrel.build.explain import explain
from kestrel.build.failed import OnFailure
from kestrel.build.flights import Flights
from kestrel.build.gather import Gathering
from kestrel.build.git import Repositories
from kestrel.build.graph import (
    Context,
    CopyFiles,
    Execute,
    Filesystem,
    MakeDirectory,
    Origin,
    Plan,
    Remote,
    Repository,
    Selection,
    Step,
)
from kestrel.build.layers import Layers
from kestrel.build.leaks import Needle, Scan, Secret, SecretLeaked
from kestrel.build.mounts import Given
from kestrel.build.ownership import beyond_range, parse_mode
from kestrel.build.remote import Downloads
from kestrel.build.threads import finished
from kestrel.build.tree import Tree
from kestrel.build.work import Worker
from kestrel.dockerfile.errors import DockerfileError
from kestrel.linux.mounts import open_rootfs
from kestrel.oci.digest import Digest

LayerList = tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of a step: `cached` when its layer was there, `reason` why it ran or could be reused."""

    id: str
    title: str
    stage: str
    cached: bool
    reason: str
    seconds: float
    size: int
    layer: Layer
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all builds of one builder share."""

    cache: Cache
    digests: FileDigests
    layers: Layers
    worker: Worker
    downloads: Downloads
    repositories: Repositories
    flights: "Flights[Layer, Event]"


@dataclass(slots=True, kw_only=True, eq=False)
class Solver:
    """One build's run of its plan. `open_context` gives a fresh tree of a context by name (empty: the main one).

    `unpack` makes the layers of base images mountable; it is awaited before the first step that has to run.
    """

    tools: Tools
    plan: Plan
    project: str
    open_context: Callable[[str], Tree]
    unpack: Callable[[], Any]
    emit: Emit
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    wanted: tuple[Needle, ...] = field(default=(), repr=False)
    ssh: Mapping[str, Path] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    host_users: bool = False
    on_failure: OnFailure | None = None
    results: dict[Step, StepResult] = field(default_factory=dict)
    _layers: dict[Step, LayerList] = field(default_factory=dict)
    _unpacked: "asyncio.Future[None] | None" = None
    _beyond: set[Step] = field(default_factory=set)
    _renewed: set[str] = field(default_factory=set)
    _looks: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def solve(self) -> LayerList:
        """Run what is needed and return the layers of the target. Raises KestrelError."""
        tasks: dict[Step, asyncio.Task[LayerList]] = {}
        try:
            for step, position in self._positions():
                if _beyond_range(step) or not self._beyond.isdisjoint(step.inputs()):
                    self._beyond.add(step)
                inputs = {each: tasks[each] for each in step.inputs() if isinstance(each, Step)}
                tasks[step] = asyncio.create_task(self._step(step, position, inputs))
            if tasks:
                await self._first_failure(list(tasks.values()))
            if self._looks:
                await self._first_failure(self._looks)
        finally:
            await _cancel([*tasks.values(), *self._looks])
            slots = [(self._slot(s, p), self.results[s].key) for s, p in self._positions() if s in self.results]
            self.tools.cache.occupy(slots)
        return self._of(self.plan.target.filesystem)

    async def _first_failure(self, tasks: "Sequence[asyncio.Task[Any]]") -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            error = None if task.cancelled() else task.exception()
            # A step that only waited for the failed one has its error too; the step itself has told it.
            if error is not None:
                raise error

    def _positions(self) -> list[tuple[Step, int]]:
        counts: dict[str, int] = {}
        found = []
        for step in self.plan.steps:
            counts[step.stage] = counts.get(step.stage, 0) + 1
            found.append((step, counts[step.stage]))
        return found

    def _of(self, filesystem: Filesystem) -> LayerList:
        return filesystem.layers if isinstance(filesystem, Origin) else self._layers[filesystem]

    def _slot(self, step: Step, position: int) -> Slot:
        return Slot(self.project, step.stage, position, step.title)

    # One step

    async def _step(self, step: Step, position: int, inputs: "dict[Step, asyncio.Task[LayerList]]") -> LayerList:
        for task in inputs.values():
            await asyncio.shield(task)
        try:
            gatherings = await self._gatherings(step)
            try:
                result = await self._reuse_or_run(step, position, gatherings)
            finally:
                for gathering in gatherings.values():
                    gathering.close()
        except KestrelError as error:
            raise self._told(error, step) from error
        self.results[step] = result
        self._looks.append(asyncio.create_task(self._look(step, result.layer)))
        below = self._of(step.parent)
        self._layers[step] = (*below, Digest.parse(result.layer.diff_id)) if result.layer.diff_id else below
        return self._layers[step]

    def _told(self, error: KestrelError, step: Step) -> KestrelError:
        placed = _placed(error, step)
        self.emit(Failed(step=step.id, message=placed.message))
        return placed

    async def _reuse_or_run(self, step: Step, position: int, gatherings: dict[int, Gathering]) -> StepResult:
        tools = self.tools
        inputs = await finished(self._inputs, step, gatherings)
        key = key_of(inputs)
        record = None if self._anew(step) else tools.cache.lookup(key)
        gone = record is not None and not await asyncio.to_thread(tools.layers.usable, record.layer)
        if record is not None and not gone:
            reason = "nothing it depends on changed"
            self.emit(Reused(step=step.id, reason=reason))
            return self._result(step, key, record.layer, record.seconds, reason, cached=True)
        for source, gathering in zip(_sources(inputs), gatherings.values(), strict=True):
            gathering.keep_listing(source["digest"])
        had, previous = await asyncio.to_thread(tools.cache.previous, self._slot(step, position))
        if gone or (had == key and previous is None):
            reason = "its layer was removed" if gone else "its record was removed"
        elif had and previous is None:
            reason = "it changed, and the record of what it was is gone"
        else:
            reason = await asyncio.to_thread(
                explain, inputs, previous.inputs if previous else None, tools.cache.listing
            )
        if self._anew(step):
            reason = "the cache is off" if self.no_cache else "the cache is off for its stage"
        began = time.monotonic()
        self.emit(Started(step=step.id, reason=reason))
        layer = await self._run(step, key, inputs, gatherings, previous.layer if previous else None)
        seconds = time.monotonic() - began
        self.emit(Done(step=step.id, seconds=seconds, size=layer.size))
        return self._result(step, key, layer, seconds, reason, cached=False)

    @staticmethod
    def _result(step: Step, key: str, layer: Layer, seconds: float, reason: str, *, cached: bool) -> StepResult:
        return StepResult(
            id=step.id,
            title=step.title,
            stage=step.stage,
            cached=cached,
            reason=reason,
            seconds=seconds,
            size=layer.size,
            layer=layer,
            key=key,
        )

    def _anew(self, step: Step) -> bool:
        return self.no_cache or step.stage in self.no_cache_stages

    async def _run(
        self,
        step: Step,
        key: str,
        inputs: dict[str, Any],
        gatherings: dict[int, Gathering],
        earlier: Layer | None,
    ) -> Layer:
        tools = self.tools
        below = () if isinstance(step.operation, CopyFiles) and step.operation.link else self._of(step.parent)

        async def work(tell: Callable[[Event], None]) -> Layer:
            began = time.monotonic()
            before = tools.cache.keys(earlier.diff_id) if earlier is not None else None
            scan = (
                None if before is None and earlier is not None else Scan(frozenset(path for _, path, _ in before or ()))
            )
            if isinstance(step.operation, Execute) and step in self._beyond and not self.host_users:
                text = f"{step.id} has the host's users: the Dockerfile names one that no range of a sandbox holds"
                tell(Warned(text=text))
            for gathering in gatherings.values():
                gathering.hold()
            try:
                await self._unpack_once()
                layer = await tools.worker.perform(
                    step, below, gatherings, self._given(step), tell, earlier, self.on_failure, scan
                )
            finally:
                for gathering in gatherings.values():
                    gathering.close()
            record = StepRecord(
                key=key,
                title=step.title,
                inputs=inputs,
                layer=layer,
                seconds=time.monotonic() - began,
                created=int(time.time()),
            )
            await asyncio.to_thread(tools.cache.record, record)
            if scan is not None and scan.complete:
                tools.cache.keep_keys(layer.diff_id, scan.keys)
            return layer

        # Who wants to look into a step that fails shares it with nobody: others would wait for him.
        flight = key if self.on_failure is None else f"{key} {id(self)}"
        return await tools.flights.join(flight, work, lambda event: self.emit(_retold(event, step)))

    def _given(self, step: Step) -> Given:
        return Given(
            secrets=self.secrets,
            wanted=self.wanted,
            ssh=self.ssh,
            limits=self.limits,
            host_users=self.host_users or step in self._beyond,
            renewed=self._renewed if self._anew(step) else None,
        )

    async def _look(self, step: Step, layer: Layer) -> None:
        """Look into a layer that the image gets, while what comes after it goes on.

        Warns of keys; a layer that was not looked at yet is read for it, once. Raises SecretLeaked when it holds a
        secret: what another build made, or an earlier one without this secret, was not searched for it.
        """
        above: Filesystem = self.plan.target.filesystem
        while isinstance(above, Step) and above is not step:
            above = above.parent
        if above is not step or not layer.blob:
            return
        try:
            await asyncio.to_thread(self.tools.layers.search, layer, self.wanted)
        except SecretLeaked as error:
            raise self._told(error, step) from error
        cache = self.tools.cache
        keys = cache.keys(layer.diff_id)
        if keys is None:
            keys = await asyncio.to_thread(self.tools.layers.keys, layer)
            cache.keep_keys(layer.diff_id, keys)
        for what, path, line in keys:
            note = "it stays in the image even where a later step removes it"
            self.emit(Warned(text=f"{step.id}: {what} in {path}:{line}; {note}"))

    async def _unpack_once(self) -> None:
        if self._unpacked is None:
            self._unpacked = asyncio.ensure_future(self.unpack())
        await asyncio.shield(self._unpacked)

    def _agent(self) -> str:
        return str(self.ssh["default"]) if "default" in self.ssh else ""

    # Keys

    def _inputs(self, step: Step, gatherings: Mapping[int, Gathering]) -> dict[str, Any]:
        """Return everything that reaches the step's layer, as JSON values. Reads files."""
        operation = step.operation
        inputs: dict[str, Any] = {
            "epoch": step.epoch,
            "parent": chain(self._of(step.parent)),
            "first": isinstance(step.parent, Origin),
        }
        if isinstance(operation, MakeDirectory):
            return {**inputs, "op": "workdir", "path": operation.path, "user": operation.user}
        if isinstance(operation, Execute):
            return {**inputs, **_run_inputs(operation, gatherings)}
        mode = parse_mode(operation.chmod)
        owned = bool(operation.chown)
        if operation.link:
            inputs.update(parent="", first=False)
        return {
            **inputs,
            "op": "copy",
            "destination": operation.destination,
            "as_directory": operation.as_directory,
            "chown": operation.chown,
            "chmod": operation.chmod,
            "link": operation.link,
            "sources": [
                {
                    "unpack": selection.unpack,
                    "parents": selection.parents,
                    "digest": gatherings[number].digest(mode, owned=owned),
                }
                for number, selection in enumerate(operation.selections)
            ],
        }

    async def _gatherings(self, step: Step) -> dict[int, Gathering]:
        found: dict[int, Gathering] = {}
        for number, selection in enumerate(_selections(step)):
            if selection is not None:
                found[number] = await self._gathering(selection)
        return found

    async def _gathering(self, selection: Selection) -> Gathering:
        origin = selection.origin
        opener: Callable[[], Tree] | None = None
        place = ""
        if isinstance(origin, Context):
            name = origin.name
            opener = lambda: self.open_context(name)  # noqa: E731 - one of four ways to say where a tree comes from
        elif isinstance(origin, Origin | Step):
            layers = self._of(origin)
            called = f"the image {origin.name}" if isinstance(origin, Origin) else f"the stage {origin.stage}"
            place = chain(layers)
            if not layers:
                raise NotFound(f"{called} has no files", hint="copy from a stage or an image that has some")
            await self._unpack_once()
            view = self.tools.layers.view(layers)
            opener = lambda: Tree(open_rootfs(view), name=called, owners=True, view=view)  # noqa: E731
        elif isinstance(origin, Repository):
            source = origin.source
            checkout = await self.tools.repositories.fetch(source, ssh=self._agent())
            opener = lambda: self.tools.repositories.tree(checkout, source)  # noqa: E731
        elif isinstance(origin, Remote):
            fetched = await self.tools.downloads.fetch(origin.url, origin.checksum)
            opener = lambda: self.tools.downloads.tree(fetched)  # noqa: E731
        return Gathering(selection, opener, place, cache=self.tools.cache, digests=self.tools.digests)


def _selections(step: Step) -> list[Selection | None]:
    if isinstance(step.operation, CopyFiles):
        return list(step.operation.selections)
    if isinstance(step.operation, Execute):
        return [
            None
            if item.origin is None
            else Selection(origin=item.origin, patterns=(item.mount.source.lstrip("/") or "/",))
            for item in step.operation.mounts
        ]
    return []


def _run_inputs(operation: Execute, gatherings: Mapping[int, Gathering]) -> dict[str, Any]:
    """Return the key of a RUN. What a secret holds, and what a cache mount holds, never counts."""
    mounts = []
    for number, item in enumerate(operation.mounts):
        mount = item.mount
        described: dict[str, Any] = {"type": mount.type, "target": mount.target}
        if mount.type == "bind":
            described.update(
                source=mount.source, read_only=mount.read_only, digest=gatherings[number].digest(None, owned=False)
            )
        elif mount.type in ("cache", "secret", "ssh"):
            described.update(id=mount.id, read_only=mount.read_only, env=mount.env)
            if number in gatherings:  # what a cache begins with
                described.update(digest=gatherings[number].digest(None, owned=False))
        mounts.append(described)
    return {
        "op": "run",
        "argv": list(operation.argv),
        "env": {name: value for name, value in operation.env if name not in operation.unkeyed},
        "cwd": operation.cwd,
        "user": operation.user,
        "network": operation.network,
        **({"hosts": [list(pair) for pair in operation.hosts]} if operation.hosts else {}),
        **({"hostname": operation.hostname} if operation.hostname else {}),
        "script": hashlib.sha256(operation.script.encode("utf-8", "surrogateescape")).hexdigest()
        if operation.script
        else "",
        "mounts": mounts,
    }


def _sources(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in (*inputs.get("sources", ()), *inputs.get("mounts", ())) if "digest" in each]


def chain(layers: LayerList) -> str:
    """Return one digest for a list of layers: what a filesystem is."""
    return hashlib.sha256("\n".join(layers).encode()).hexdigest() if layers else ""


def _beyond_range(step: Step) -> bool:
    try:
        return beyond_range(step)
    except InvalidArgument as error:
        raise _placed(error, step) from error


def _placed(error: KestrelError, step: Step) -> KestrelError:
    """Give an error about what an instruction asks for that instruction's place."""
    if isinstance(error, DockerfileError) or "line" in error.context:
        return error
    placed = DockerfileError(error.message, source=step.place.source, where=step.place.range, hint=error.hint)
    if isinstance(error, SecretLeaked):  # the lines may hold it
        message = f"{error.message}\n  {step.place.source.name}:{placed.line}"
        return SecretLeaked(message, hint=error.hint, **placed.context)
    if isinstance(error, NotFound | InvalidArgument) or error.kind == "failed-precondition":
        return placed
    return KINDS[error.kind](placed.message, hint=error.hint, **{**error.context, **placed.context})


def _retold(event: Event, step: Step) -> Event:
    """Another build may call the same step by another name."""

    return msgspec.structs.replace(event, step=step.id) if hasattr(event, "step") else event


async def _cancel(tasks: "Sequence[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # seen: the first one has been raised
