"""`Builder`, the object that doors hold: a request in, an image in the store out.

    builder = Builder(images=..., content=..., snapshots=..., executor=..., database=..., root=Path(...))
    result = await builder.build(BuildRequest(context=Path("."), tags=("app:1",)), print)

The order of a build: read the Dockerfile, find out which stages are needed, look up the images they name, plan,
solve, assemble, import. Everything up to planning fails before anything has run.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kestrel.base.db import Database
from kestrel.base.errors import InvalidArgument, KestrelError, NotFound, nearest
from kestrel.build.bases import Bases, Images
from kestrel.build.cache import Cache, Layer
from kestrel.build.check import VIOLATION, Checked, Fixed, examine, image_names, mend
from kestrel.build.collect import (
    CONTEXT,
    DOWNLOAD,
    MOUNT,
    REPOSITORY,
    STEP,
    Collection,
    Held,
    Policy,
    directories,
    judge,
    remove,
)
from kestrel.build.contents import Contents, look_into
from kestrel.build.contexts import Contexts
from kestrel.build.digests import FileDigests
from kestrel.build.events import Emit, Event, Exported, Listed, Planned, Warned
from kestrel.build.executor import Executor
from kestrel.build.export import Assembled, assemble
from kestrel.build.failed import OnFailure
from kestrel.build.flights import Flights
from kestrel.build.git import Repositories
from kestrel.build.graph import BaseImage, Plan
from kestrel.build.journal import Journal, Logged
from kestrel.build.layers import Layers
from kestrel.build.leaks import SHORTEST, needles, too_short
from kestrel.build.lower_from import Named, Outline, check_platforms, outline, with_triggers
from kestrel.build.mounts import Mounts
from kestrel.build.offers import BuildOutline, Target, build_outline, targets
from kestrel.build.outputs import file_at, write_files
from kestrel.build.plan import Planner
from kestrel.build.preflight import check_configuration, check_request
from kestrel.build.remote import Downloads, Get, over_http
from kestrel.build.report import ContextReport, report
from kestrel.build.request import (
    HOST_NETWORK,
    HOSTNAME,
    BuildRequest,
    Read,
    clamp,
    in_seconds,
    open_context,
    read_files,
    read_program,
)
from kestrel.build.scope import Scope, platform_args
from kestrel.build.solver import Solver, StepResult, Tools
from kestrel.build.threads import finished
from kestrel.build.verify import Difference, first_difference
from kestrel.build.work import Worker
from kestrel.content import Store
from kestrel.dockerfile import IgnoreList
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.instructions import Instruction
from kestrel.dockerfile.lint import Base
from kestrel.dockerfile.lint_catalogue import UNDEFINED_VAR
from kestrel.images import Image
from kestrel.oci.config import ImageConfig
from kestrel.oci.digest import Digest
from kestrel.oci.platform import Platform
from kestrel.snapshots import Snapshotter


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """The image: its id (digest of the configuration), the digest of its manifest, and what became of each step.

    All plain values, so that it can be sent as it is.
    """

    image_id: str
    digest: str
    names: tuple[str, ...]
    steps: tuple[StepResult, ...]
    seconds: float
    log: str = ""
    """The file with everything that was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A build that was repeated; `difference` None when it gave the same bytes."""

    result: BuildResult
    difference: Difference | None


class Builder:
    """Builds images; several at once share what they have in common. Use from one event loop.

    `root` is the builder's own directory (cache mounts, downloads); `scratch` is for what lives during a build, best
    in memory since secrets pass through it. `get` opens URLs for ADD.
    """

    def __init__(
        self,
        *,
        images: Images,
        content: Store,
        snapshots: Snapshotter,
        executor: Executor,
        database: Database,
        root: Path,
        scratch: Path | None = None,
        get: Get = over_http,
    ) -> None:
        self._images = images
        self._content = content
        self.cache = Cache(database)
        self._root = root
        self._solvers: set[Solver] = set()
        self._journal = Journal(root / "logs")
        layers = Layers(snapshots, content)
        layers.discard_strays()
        mounts = Mounts(root, scratch or root / "scratch")
        downloads = Downloads(root / "downloads", get)
        repositories = Repositories(root / "repositories")
        self._contexts = Contexts(
            downloads=downloads, repositories=repositories, images=images, directory=root / "contexts"
        )
        self._tools = Tools(
            cache=self.cache,
            digests=FileDigests(database),
            layers=layers,
            worker=Worker(layers=layers, cache=self.cache, executor=executor, mounts=mounts),
            downloads=downloads,
            repositories=repositories,
            flights=Flights[Layer, Event](),
        )

    async def build(
        self, request: BuildRequest, progress: Emit = lambda _: None, on_failure: OnFailure | None = None
    ) -> BuildResult:
        """Build and return the image. Raises DockerfileError and other KestrelErrors; cancelling cleans up.

        `on_failure` is awaited when a RUN has failed, while its files and mounts are still there (`build.failed`).
        """
        with self._journal.open(progress) as recording:
            try:
                return replace(await self._build(request, recording.tell, on_failure), log=str(recording.path))
            except KestrelError as error:
                error.context.setdefault("log", str(recording.path))
                raise

    async def _build(self, request: BuildRequest, progress: Emit, on_failure: OnFailure | None) -> BuildResult:
        began = time.monotonic()
        check_request(request)
        wanted = await asyncio.to_thread(needles, request.secrets)
        for name in too_short(request.secrets):
            progress(
                Warned(text=f"the secret `{name}` has fewer than {SHORTEST} bytes, so no layer is searched for it")
            )
        request = await self._contexts.at_hand(request)
        read = await asyncio.to_thread(read_program, request)
        advise(read, request, progress)
        bases = Bases(self._images, progress, pull=request.pull)
        with self._content.lease():
            plan = await self._plan(request, read, bases)
            progress(_planned(plan, read, request))
            for warning in plan.warnings:
                progress(Warned(text=warning))
            check_configuration(plan, read.source, wanted)
            solver = Solver(
                tools=self._tools,
                plan=plan,
                project=f"{os.path.realpath(request.context)}:{read.source.name}",
                open_context=lambda name: open_context(request, read, name),
                unpack=bases.unpack,
                emit=progress,
                no_cache=request.no_cache,
                no_cache_stages=_stages_anew(request, read, progress),
                secrets=request.secrets,
                wanted=wanted,
                ssh=request.ssh,
                limits=request.limits,
                host_users=request.host_users,
                on_failure=on_failure,
            )
            self._solvers.add(solver)
            try:
                await solver.solve()
                return await self._export(request, plan, solver, progress, began)
            finally:
                self._solvers.discard(solver)

    def roots(self) -> list[Digest]:
        """Return the blobs that reusable steps left, for a collection to keep."""
        return [Digest(blob) for blob in self.cache.blobs()]

    def layer_roots(self) -> list[Digest]:
        """Return the layers (by diff_id) that reusable steps left."""
        return [Digest(diff_id) for diff_id in self.cache.layers()]

    async def collect(self, policy: Policy, *, dry_run: bool = False) -> Collection:
        """Let go of what the policy does not keep; with `dry_run` only say so. Says of each thing why."""
        layers = {layer: _called(image) for image in await self._images.list() for layer in image.layers}
        held = await asyncio.to_thread(self._held, layers)
        judged = judge(held, policy, time.time())
        doomed = [each.held for each in judged if each.removed]
        if dry_run:
            return Collection(judged=judged, freed=sum(each.cost for each in judged if each.removed))
        steps = [each for each in doomed if each.kind == STEP]
        since = time.time() - (0 if policy.everything else policy.unused_for)
        await asyncio.to_thread(self.cache.drop, [each.key for each in steps], unused_since=since)
        blobs = [Digest(each.blob) for each in steps if each.blob]
        freed = await self._images.release(blobs, [Digest(each.layer) for each in steps if each.layer])
        for each in doomed:
            if each.kind == MOUNT:
                await self._tools.worker.mounts.drop(Path(each.key))
            elif each.kind != STEP:
                await asyncio.to_thread(remove, Path(each.key))
        freed += sum(each.size for each in doomed if each.kind != STEP)
        return Collection(judged=judged, freed=freed)

    def _held(self, layers: Mapping[Digest, str]) -> list[Held]:
        running = {result.key for solver in self._solvers for result in solver.results.values()}
        busy = bool(self._solvers)
        held = [
            Held(
                kind=STEP,
                name=title,
                size=layer.size,
                used=used,
                key=key,
                where=where,
                image=layers.get(Digest(layer.diff_id), "") if layer.diff_id else "",
                layer=layer.diff_id,
                blob=layer.blob,
                in_use=key in running,
            )
            for key, title, layer, used, where in self.cache.held()
        ]
        held += self._tools.worker.mounts.held()
        for name, kind in (("downloads", DOWNLOAD), ("repositories", REPOSITORY), ("contexts", CONTEXT)):
            held += [replace(each, in_use=busy) for each in directories(self._root / name, kind)]
        return held

    def prune(self, *, unused_for: float = 0.0) -> int:
        """Forget steps that no build used for so many seconds, and return how many; their layers are garbage then."""
        return len(self.cache.prune(unused_for=unused_for))

    def logs(self) -> tuple[Logged, ...]:
        """Return the complete logs of the last builds, the newest first."""
        return self._journal.logs()

    def log(self, name: str) -> Logged:
        """Return one log. Raises NotFound."""
        return self._journal.find(name)

    async def plan(self, request: BuildRequest) -> Plan:
        """Return the plan of a request without running anything (base images are looked up, and pulled if absent)."""
        request = await self._contexts.at_hand(request)
        read = await asyncio.to_thread(read_program, request)
        return await self._plan(request, read, Bases(self._images, lambda _: None, pull=request.pull))

    async def check(self, request: BuildRequest) -> Checked:
        """Look at the Dockerfile without running or pulling anything. Raises KestrelError when it cannot be read."""
        data, look = await self._look(request)
        return look(data)

    async def fix(self, request: BuildRequest) -> Fixed:
        """Return the Dockerfile's text with every certain fix. Writes nothing."""
        data, look = await self._look(request)
        return mend(data.decode("utf-8", "surrogateescape"), look)

    async def _look(self, request: BuildRequest) -> tuple[bytes, Callable[["str | bytes"], Checked]]:
        """Return the Dockerfile, and what examines it or another one in its place."""
        request = await self._contexts.at_hand(request)
        data, name, ignore = await asyncio.to_thread(read_files, request)
        found: dict[str, Base] = {}
        for image in image_names(data, name, request.build_args):
            try:
                known = await self._images.resolve(image)
            except KestrelError:
                continue  # not here: only its name is judged
            found[image] = _known(known.config)
        look = partial(
            examine,
            name=name,
            ignore=ignore,
            args=request.build_args,
            bases=found,
            target=request.target,
            registries=request.registries,
            named=_named(request),
            planned=True,
        )
        return data, look

    async def verify(self, request: BuildRequest, progress: Emit = lambda _: None) -> Verified:
        """Build, build every step again, and compare. The image of the first build is the one that stays."""
        first = await self.build(request, progress)
        second = await self.build(replace(request, no_cache=True, tags=()), progress)
        difference = await asyncio.to_thread(first_difference, first.steps, second.steps, self._content)
        if difference is not None:  # what was there before stays the record of each step
            for step in first.steps:
                self.cache.point(step.key, step.layer)
        return Verified(result=first, difference=difference)

    async def contents(self, name: str) -> Contents:
        """Return what an image's layers hold: added and wasted bytes by instruction, and keys left behind."""
        return await asyncio.to_thread(look_into, await self._images.resolve(name), self._content)

    async def context_report(self, request: BuildRequest) -> ContextReport:
        """Say what a build would read of its context, and what it need not. Runs nothing; looks base images up."""
        request = await self._contexts.at_hand(request)
        read = await asyncio.to_thread(read_program, request)
        plan = await self._plan(request, read, Bases(self._images, lambda _: None, pull=request.pull))
        bare = replace(read, ignore=IgnoreList())
        return await asyncio.to_thread(
            report, plan, lambda: open_context(request, read, ""), lambda: open_context(request, bare, "")
        )

    async def targets(self, request: BuildRequest) -> tuple[Target, ...]:
        """Return the stages that can be built."""
        return targets((await asyncio.to_thread(read_program, await self._contexts.at_hand(request))).program)

    async def outline(self, request: BuildRequest) -> BuildOutline:
        """Return the arguments, secrets and agents that a build of the target takes."""
        read = await asyncio.to_thread(read_program, await self._contexts.at_hand(request))
        return build_outline(read.source, read.escape, read.program, request.target, request.build_args)

    async def _plan(self, request: BuildRequest, read: Read, bases: Bases) -> Plan:
        predefined = platform_args(Platform.host(), request.target)
        scope = Scope(dict(request.build_args), predefined, escape=read.escape)
        first = outline(read.program, read.source, scope, request.target, _named(request))
        found: dict[str, BaseImage] = {}
        while missing := {n: i for n, i in first.images().items() if n not in found}:
            found.update(await self._find(missing, read, bases))
            first = with_triggers(first, {name: base.config.on_build for name, base in found.items()})
        check_platforms(first, read.source)
        return self._planner(request, read, first, found, predefined, clamp(request, read, first)).plan()

    async def _find(self, missing: Mapping[str, Instruction], read: Read, bases: Bases) -> dict[str, BaseImage]:
        """Look several images up at once; an error points at the instruction that names the image."""

        async def find(name: str, instruction: Instruction) -> BaseImage:
            try:
                return await bases.find(name)
            except (NotFound, InvalidArgument) as error:
                hint = await self._meant(name, read) or error.hint
                raise DockerfileError.at(instruction.node, error.message, source=read.source, hint=hint) from error

        tasks = {name: asyncio.ensure_future(find(name, instruction)) for name, instruction in missing.items()}
        try:
            return {name: await task for name, task in tasks.items()}
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _meant(self, name: str, read: Read) -> str | None:
        """Suggest a stage, or an image that is here, for a name that was not found."""
        stages = [stage.name for stage in read.program.stages if stage.name and stage.name != name.lower()]
        here = [called.removesuffix(":latest") for image in await self._images.list() for called in image.names]
        close = nearest(name, [*stages, *here])
        if close is None:
            return None
        return f"did you mean the stage `{close}`?" if close in stages else f"did you mean `{close}`, which is here?"

    @staticmethod
    def _planner(
        request: BuildRequest,
        read: Read,
        first: Outline,
        found: Mapping[str, BaseImage],
        predefined: Mapping[str, str],
        epoch: int | None,
    ) -> Planner:
        return Planner(
            outline=replace(first, global_args=in_seconds(first.global_args, epoch)),
            source=read.source,
            escape=read.escape,
            bases=found,
            given=in_seconds(request.build_args, epoch),
            predefined=predefined,
            epoch=epoch,
            network=request.network or "default",
            hosts=request.hosts,
            hostname=request.build_args.get(HOSTNAME) or request.hostname,
            host_network=HOST_NETWORK in request.allow,
            labels=request.labels,
        )

    async def _export(
        self, request: BuildRequest, plan: Plan, solver: Solver, progress: Emit, began: float
    ) -> BuildResult:
        start = time.monotonic()
        assembled = assemble(plan.target, {step: result.layer for step, result in solver.results.items()})
        await self._images.import_image(assembled.manifest, assembled.config, names=request.tags)
        await self._write_outputs(request, plan, assembled)
        seconds = time.monotonic() - start
        progress(Exported(image=str(assembled.image_id), names=request.tags, seconds=seconds))
        return BuildResult(
            image_id=str(assembled.image_id),
            digest=str(assembled.digest),
            names=request.tags,
            steps=tuple(solver.results[step] for step in plan.steps),
            seconds=time.monotonic() - began,
        )

    async def _write_outputs(self, request: BuildRequest, plan: Plan, assembled: Assembled) -> None:
        for output in request.outputs:
            if output.type in ("oci", "docker"):
                with file_at(output) as sink:
                    await self._images.save(
                        request.tags or (str(assembled.image_id),), sink, compression=output.packing
                    )
            elif output.type in ("tar", "local"):
                view = self._tools.layers.view(assembled.layers) if assembled.layers else None
                await finished(write_files, view, output, plan.target.epoch * 1_000_000_000)


def _named(request: BuildRequest) -> Named:
    return Named(directories=frozenset(request.contexts), images=request.images)


def _called(image: Image) -> str:
    return str(image.names[0]) if image.names else image.id.short


def _planned(plan: Plan, read: Read, request: BuildRequest) -> Planned:
    return Planned(
        dockerfile=read.source.name,
        target=request.target or plan.target.name,
        steps=tuple(Listed(id=step.id, title=step.title, stage=step.stage) for step in plan.steps),
    )


def _stages_anew(request: BuildRequest, read: Read, progress: Emit) -> frozenset[str]:
    """Return the stages that are to be built without cache, by their names; who misspelled one is told."""
    wanted = frozenset(name.lower() for name in request.no_cache_stages)
    known = {stage.name for stage in read.program.stages}
    for name in sorted(wanted - known):
        close = nearest(name, known)
        meant = f"; did you mean `{close}`?" if close else ""
        progress(Warned(text=f"no stage is called `{name}`, which was to be built without cache{meant}"))
    return wanted


def advise(read: Read, request: BuildRequest, progress: Emit) -> None:
    """Warn of what the language's rules find in the stages that are going to be built.

    Raises DockerfileError when the file says `check=error=true` and there is something.
    """
    text, name = read.source.text, read.source.name
    checked = examine(
        text, name=name, ignore=read.ignore, args=request.build_args, target=request.target, target_only=True
    )
    for found in checked.language:
        # What depends on the base image is not known yet.
        if found.rule is not UNDEFINED_VAR:
            progress(Warned(text=f"{name}:{found.line}: {found.rule.name}: {found.detail}"))
    if checked.error.startswith(VIOLATION):
        raise DockerfileError(checked.error, hint="`build --check` shows them; the file says that they are errors")


def _known(image: ImageConfig) -> Base:
    return Base(
        environment=image.config.environment(),
        shell=image.config.shell or (),
        user=image.config.user,
        platform=f"{image.os}/{image.architecture}",
        expected=f"{Platform.host().os}/{Platform.host().architecture}",
    )
