"""A program and the images it starts from become a plan: one graph of steps, made before anything runs.

first = outline(program, ...)         which stages are needed, which images they name
bases = resolve(first.images(...))    the caller looks them up, all at once
plan = make_plan(first, bases, ...)   pure: instructions to steps
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.build import lower_config, lower_copy, lower_run
from kestrel.build.graph import (
    BaseImage,
    Context,
    CopyFiles,
    Filesystem,
    Origin,
    Plan,
    PlannedStage,
    Selection,
    Step,
    needed,
)
from kestrel.build.lower import DEFAULT_PATH, Lowering
from kestrel.build.lower_from import SCRATCH, Outline, StageOutline
from kestrel.build.scope import PROXIES, Scope
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.nodes import Source
from kestrel.oci.config import ContainerDefaults

DEFAULT_EPOCH = 315_532_800
"""1980-01-01, the earliest date that every archive format can hold: the time of files in images built on nothing."""

_NO_TEXT = re.compile("[\udc80-\udcff]")
"""How bytes that are not UTF-8 are kept in text (`surrogateescape`)."""
Lower = Callable[[Lowering, Any], None]
LOWER: Mapping[type[ins.Instruction], Lower] = {
    ins.Add: lower_copy.lower_add,
    ins.Arg: lower_config.lower_arg,
    ins.Cmd: lower_config.lower_cmd,
    ins.Copy: lower_copy.lower_copy,
    ins.Entrypoint: lower_config.lower_entrypoint,
    ins.Env: lower_config.lower_env,
    ins.Expose: lower_config.lower_expose,
    ins.Healthcheck: lower_config.lower_healthcheck,
    ins.Label: lower_config.lower_label,
    ins.Maintainer: lower_config.lower_maintainer,
    ins.Onbuild: lower_config.lower_onbuild,
    ins.Run: lower_run.lower_run,
    ins.Shell: lower_config.lower_shell,
    ins.StopSignal: lower_config.lower_stopsignal,
    ins.User: lower_config.lower_user,
    ins.Volume: lower_config.lower_volume,
    ins.Workdir: lower_copy.lower_workdir,
}


@dataclass(slots=True, kw_only=True)
class Planner:
    """What all stages of a plan share. `epoch` is the request's own clamp, None to take the base image's time."""

    outline: Outline
    source: Source
    escape: str
    bases: Mapping[str, BaseImage]
    given: Mapping[str, str]
    predefined: Mapping[str, str]
    epoch: int | None = None
    network: str = "default"
    hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    host_network: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    _done: dict[int, Lowering] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def plan(self) -> Plan:
        """Lower every needed stage. Raises DockerfileError, or Unimplemented with the place in its message."""
        asked = self.outline.stages[self.outline.target].stage.name
        self.predefined = {**self.predefined, "TARGETSTAGE": asked or "default"}
        for index in self.outline.needed:
            self._done[index] = self._stage(self.outline.stages[index])
        target = self._done[self.outline.target]
        if self.labels:
            target.configure(labels={**target.config.labels, **self.labels})
        stages = tuple(_planned(stage) for stage in self._done.values())
        planned = next(stage for stage in stages if stage.index == self.outline.target)
        return Plan(target=planned, steps=needed(planned.filesystem), stages=stages, warnings=tuple(self._warnings()))

    def _stage(self, outline: StageOutline) -> Lowering:
        stage = self._begin(outline)
        context = self.outline.named.directory(outline.image) if outline.parent is None else None
        if context is not None:
            _whole(stage, outline.stage.from_, context)
        if outline.triggers:
            stage.configure(on_build=())
            for instruction in outline.triggers:
                self._lower(stage, instruction, Source(f"ONBUILD of {outline.image}", instruction.node.text))
        for instruction in outline.stage.instructions:
            self._lower(stage, instruction, self.source)
        self._used |= stage.scope.used
        return stage

    def _begin(self, outline: StageOutline) -> Lowering:
        if outline.parent is not None:
            return self._inherit(outline, self._done[outline.parent])
        base = self.bases.get(outline.image)
        config = base.config if base else ContainerDefaults(env=(f"PATH={DEFAULT_PATH}",), working_dir="/")
        scope = Scope(
            self.given,
            self.predefined,
            self.outline.global_args,
            self.escape,
        )
        scope.env.update(config.environment())
        filesystem: Filesystem = Origin(name=outline.image, layers=base.layers if base else ())
        return self._lowering(outline, scope, config, base, filesystem)

    def _inherit(self, outline: StageOutline, parent: Lowering) -> Lowering:
        scope = parent.scope.child()
        stage = self._lowering(outline, scope, parent.config, parent.base, parent.filesystem)
        stage.epoch = parent.epoch
        stage.author = parent.author
        stage.history.extend(parent.history)
        return stage

    def _lowering(
        self,
        outline: StageOutline,
        scope: Scope,
        config: ContainerDefaults,
        base: BaseImage | None,
        filesystem: Filesystem,
    ) -> Lowering:
        own = self.epoch if self.epoch is not None else ((base.created if base else 0) or DEFAULT_EPOCH)
        index = outline.stage.index
        return Lowering(
            name=outline.stage.name,
            index=index,
            source=self.source,
            scope=scope,
            config=config,
            base=base,
            filesystem=filesystem,
            epoch=own,
            find=lambda name: self._origin(name, index),
            network=self.network,
            hosts=self.hosts,
            hostname=self.hostname,
            host_network=self.host_network,
        )

    def _origin(self, name: str, index: int) -> Origin | Step | Context:
        named = self.outline.named
        context = named.directory(name)
        if context is not None:
            return Context(name=context)
        found = self.outline.find(name, index)
        name = named.image(name)
        if found is not None:
            return self._done[found].filesystem
        if name == SCRATCH:
            return Origin(name=name)
        return Origin(name=name, layers=self.bases[name].layers)

    def _lower(self, stage: Lowering, instruction: ins.Instruction, source: Source) -> None:
        stage.source = source
        _check_text(instruction, source)
        lower = LOWER[type(instruction)]
        try:
            lower(stage, instruction.expanded(stage.scope))
        except DockerfileError as error:
            raise error.within(source, instruction.node) from None
        except InvalidArgument as error:
            raise DockerfileError.at(instruction.node, error.message, source=source, hint=error.hint) from None
        except KestrelError as error:
            placed = DockerfileError.at(instruction.node, error.message, source=source)
            raise type(error)(placed.message, hint=error.hint) from None

    def _warnings(self) -> list[str]:
        """Name the arguments that were given and taken by nothing: most often a misspelled --build-arg."""
        known = {*self._used, *self.outline.global_args, *self.predefined, "SOURCE_DATE_EPOCH"}
        unused = [n for n in self.given if n not in known and n not in PROXIES and not n.startswith("BUILDKIT_")]
        return [f"--build-arg {name} was given, but no ARG of the needed stages takes it" for name in unused]


def _check_text(instruction: ins.Instruction, source: Source) -> None:
    """Refuse bytes that are no text where they would get into the image's configuration, which is JSON."""
    node = instruction.node
    texts = (node.text, *(each.content for each in node.heredocs if isinstance(instruction, ins.Run)))
    for text in texts:
        found = _NO_TEXT.search(text)
        if found is not None:
            sentence = f"{node.keyword} holds the byte {ord(found[0]) & 0xFF:#x}, which is not UTF-8"
            offset = found.start() if text is node.text else None
            raise DockerfileError.at(node, sentence, source=source, offset=offset, hint="save the file as UTF-8")


def _whole(stage: Lowering, instruction: ins.From, context: str) -> None:
    """FROM a context: its files are what the stage begins with."""
    selection = Selection(origin=Context(name=context), patterns=("/",))
    operation = CopyFiles(selections=(selection,), destination="/", as_directory=True)
    stage.step(instruction, operation, f"FROM {context}")


def _planned(stage: Lowering) -> PlannedStage:
    return PlannedStage(
        index=stage.index,
        name=stage.label,
        base=stage.base,
        filesystem=stage.filesystem,
        config=stage.config,
        history=tuple(stage.history),
        epoch=stage.epoch,
        author=stage.author,
    )
