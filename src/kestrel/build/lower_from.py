"""FROM: which image or stage each stage begins with, and which stages a target needs at all.

Answered before any image is looked up: the outline lists the images to resolve, so that what no needed stage names
is never asked of a registry.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from kestrel.base.errors import InvalidArgument, Unimplemented
from kestrel.build.scope import Scope
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.decode import decode_text
from kestrel.dockerfile.errors import DockerfileError, suggestion
from kestrel.dockerfile.mounts import parse_mount
from kestrel.dockerfile.nodes import Source
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutline:
    """A stage with its FROM line expanded. `parent` is the stage it builds on, None when `image` is a name.

    `triggers` are the ONBUILD instructions that what it builds on brings, None until the image is known. `platform` is
    the one that it is said to be of.
    """

    stage: ins.Stage
    image: str
    parent: int | None
    platform: Platform | None = None
    triggers: tuple[ins.Instruction, ...] | None = None

    @property
    def instructions(self) -> tuple[ins.Instruction, ...]:
        """Everything the stage carries out, the triggers first."""
        return (*(self.triggers or ()), *self.stage.instructions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """All stages, the target's index, and the indices of those it needs, in order.

    `named` are the contexts given with the request: a name that is one of them means neither a stage nor an image.
    """

    stages: tuple[StageOutline, ...]
    target: int
    needed: tuple[int, ...]
    global_args: Mapping[str, str]
    named: "Named"

    def images(self) -> dict[str, ins.Instruction]:
        """Return the names of images that the needed stages ask for, each with the instruction that does first."""
        names: dict[str, ins.Instruction] = {}
        for index in self.needed:
            outline = self.stages[index]
            wanted: list[tuple[str, ins.Instruction]] = []
            if outline.parent is None:
                wanted.append((outline.image, outline.stage.from_))
            wanted += [
                (self.named.image(name), instruction)
                for instruction in outline.instructions
                for name in references(instruction)
                if self.find(name, index) is None
            ]
            for name, instruction in wanted:
                if name != SCRATCH and self.named.directory(name) is None:
                    names.setdefault(name, instruction)
        return names

    def find(self, name: str, before: int) -> int | None:
        """Return the index of the stage that `name` (or a number) means at a place, or None."""
        return None if name in self.named else find_stage([o.stage for o in self.stages], name, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The contexts of a request by name: directories, and images by what they are to be instead.

    An image's name means the context also where it is written otherwise, such as `busybox` without its tag.
    """

    directories: frozenset[str] = frozenset()
    images: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return _known(name, self.directories) is not None or _known(name, self.images) is not None

    def directory(self, name: str) -> str | None:
        """Return the context that is a directory and meant by a name."""
        return _known(name, self.directories)

    def image(self, name: str) -> str:
        """Return the image that a name means."""
        known = _known(name, self.images)
        return name if known is None else self.images[known]


def _known(name: str, among: Collection[str]) -> str | None:
    if name in among or not among:
        return name if among else None
    try:
        full = Reference.parse(name)
    except InvalidArgument:
        return None
    return next((each for each in (full.familiar(), str(full)) if each in among), None)


def outline(
    program: ins.Program,
    source: Source,
    scope: Scope,
    target: str,
    named: Named = Named(),
) -> Outline:
    """Expand every FROM and find out which stages the target needs. Raises DockerfileError."""
    scope = replace(scope, undeclared=scope.predefined)
    for arg in program.global_args:
        try:
            scope.declare(arg)
        except DockerfileError as error:
            raise error.within(source, arg.node) from None
    stages = tuple(_outline(stage, source, scope, program.stages, named) for stage in program.stages)
    index = _target(program.stages, target)
    values = {name: value for name, value in scope.args.items() if value is not None}
    found = Outline(stages=stages, target=index, needed=(), global_args=values, named=named)
    found = replace(found, needed=_needed(found))
    check_platforms(found, source)
    for needed in found.needed:
        for instruction in stages[needed].stage.instructions:
            check_references(found, needed, instruction, source)
    return found


def check_references(outline: Outline, index: int, instruction: ins.Instruction, source: Source) -> None:
    """Refuse `--from` that means a stage which is not there yet: a number is never an image, as docker has it."""
    names = [each.stage.name for each in outline.stages]
    for name in references(instruction):
        if outline.find(name, index) is not None or name in outline.named:
            continue
        if name.isdecimal():
            sentence, hint = f"there is no stage `{name}` before this one", f"this is stage {index}; they count from 0"
        elif name.lower() in names[index:]:
            sentence, hint = (
                f"the stage `{name}` is not there yet",
                "it has to stand before the one that copies from it",
            )
        else:
            continue
        raise DockerfileError.at(instruction.node, sentence, source=source, hint=hint)


def with_triggers(outline: Outline, on_build: Mapping[str, tuple[str, ...]]) -> Outline:
    """Return the outline with the triggers of images looked up meanwhile: they may need further stages and images."""
    stages = tuple(
        replace(each, triggers=tuple(decode_text(text, f"ONBUILD of {each.image}") for text in on_build[each.image]))
        if each.parent is None and each.triggers is None and each.image in on_build
        else each
        for each in outline.stages
    )
    complete = replace(outline, stages=stages)
    return replace(complete, needed=_needed(complete))


def _needed(outline: Outline) -> tuple[int, ...]:
    """Return the indices of the stages that the target builds on or copies from, itself included."""
    stages = outline.stages
    needed: set[int] = set()
    pending = [outline.target]
    while pending:
        current = pending.pop()
        if current in needed:
            continue
        needed.add(current)
        parent = stages[current].parent
        names = [name for instruction in stages[current].instructions for name in references(instruction)]
        found = [parent, *(outline.find(name, current) for name in names)]
        pending.extend(index for index in found if index is not None)
    return tuple(sorted(needed))


def _outline(
    stage: ins.Stage, source: Source, scope: Scope, stages: tuple[ins.Stage, ...], named: Named
) -> StageOutline:
    try:
        base = stage.from_.expanded(scope)
    except DockerfileError as error:
        raise error.within(source, stage.from_.node) from None
    if not base.image:
        raise DockerfileError.at(
            stage.from_.node,
            f"the image name `{stage.from_.image}` is empty once its variables are put in",
            source=source,
            hint="declare the ARG before the first FROM, and give it a default or a --build-arg",
        )
    platform = _platform(stage.from_, base, source)
    if base.image in named:
        return StageOutline(stage=stage, image=named.image(base.image), parent=None, platform=platform)
    parent = find_stage(stages, base.image, stage.index, numbers=False)
    triggers = None if parent is None else _triggers(stages[parent])
    return StageOutline(stage=stage, image=base.image, parent=parent, triggers=triggers, platform=platform)


def _triggers(parent: ins.Stage) -> tuple[ins.Instruction, ...]:
    """Return what a stage leaves to those that build on it; what it was left itself is used up by then."""
    expressions = [each.expression for each in parent.instructions if isinstance(each, ins.Onbuild)]
    return tuple(decode_text(text, f"ONBUILD of {parent.name}") for text in expressions)


def _platform(written: ins.From, base: ins.From, source: Source) -> Platform | None:
    try:
        return Platform.parse(base.platform).normalized() if written.platform else None
    except InvalidArgument:
        sentence = f"the platform `{written.platform}` comes to `{base.platform}` once its variables are put in"
        hint = "write it as linux/amd64, or declare the ARG before the first FROM"
        raise DockerfileError.at(written.node, sentence, source=source, hint=hint) from None


def check_platforms(outline: Outline, source: Source) -> None:
    """Refuse stages that are needed and of another machine."""
    for needed in outline.needed:
        written, meant = outline.stages[needed].stage.from_, outline.stages[needed].platform
        if meant in (None, Platform.host()):
            continue
        sentence = f"`--platform={written.platform}` is not this machine's platform"
        if written.platform != str(meant):
            sentence += f" ({meant})"
        placed = DockerfileError.at(written.node, sentence, source=source)
        raise Unimplemented(placed.message, hint=f"only {Platform.host()} can be built here", **placed.context)


def find_stage(
    stages: "tuple[ins.Stage, ...] | list[ins.Stage]", name: str, before: int, *, numbers: bool = True
) -> int | None:
    """Return the last stage before `before` of that name; numbers count stages from 0."""
    if name.lower() == SCRATCH:
        return None
    for stage in reversed(stages[:before]):
        if stage.name and stage.name == name.lower():
            return stage.index
    if numbers and name.isdecimal() and int(name) < before:
        return int(name)
    return None


def _target(stages: tuple[ins.Stage, ...], target: str) -> int:
    if not target:
        return len(stages) - 1
    found = find_stage(stages, target, len(stages))
    if found is None:
        names = [stage.name for stage in stages if stage.name]
        listed = f"the stages are {', '.join(names)}" if names else "no stage has a name; write `FROM ... AS <name>`"
        raise DockerfileError(f"no stage `{target}`", hint=suggestion(target, names) or listed)
    return found


def references(instruction: ins.Instruction) -> tuple[str, ...]:
    """Return what an instruction names by `--from`, in COPY and in mounts."""
    if isinstance(instruction, ins.Copy) and instruction.from_:
        return (instruction.from_,)
    if isinstance(instruction, ins.Run):
        return tuple(mount.from_ for mount in map(parse_mount, instruction.mounts) if mount.from_)
    return ()
