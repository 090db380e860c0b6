"""What a Dockerfile offers and takes: `build --targets` lists its stages, `build --outline` the inputs of one. Pure.

An argument from before the first FROM is listed when a needed stage uses it, directly or through the value of another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kestrel.build.lower_from import Outline, outline
from kestrel.build.scope import Scope, platform_args
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.expand import Expander
from kestrel.dockerfile.mounts import parse_mount
from kestrel.dockerfile.nodes import Source
from kestrel.oci.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An ARG of the outline: what it is for (the comment above it), its value, and where it stands."""

    name: str
    description: str
    value: str | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A secret, an ssh agent or a cache that a RUN mounts, and the line that does so first."""

    name: str
    required: bool
    line: int


T = TypeVar("T", Argument, Input)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A stage that can be built: its name or number, the comment above it, what it starts from, and its line."""

    name: str
    description: str
    base: str
    line: int
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutline:
    """What a build of a target takes, in the order of lines."""

    target: str
    description: str
    arguments: tuple[Argument, ...]
    secrets: tuple[Input, ...] = ()
    ssh: tuple[Input, ...] = ()
    caches: tuple[Input, ...] = ()


def targets(program: ins.Program) -> tuple[Target, ...]:
    """Return the stages of a file; the last is what is built when none is named."""
    last = len(program.stages) - 1
    return tuple(
        Target(
            name=stage.name or str(stage.index),
            description=_description(stage.from_, stage.name),
            base=stage.from_.image,
            line=stage.from_.node.range.first,
            default=stage.index == last,
        )
        for stage in program.stages
    )


def build_outline(
    source: Source, escape: str, program: ins.Program, target: str, args: Mapping[str, str]
) -> BuildOutline:
    """Return what can be given to a build of a target. Raises DockerfileError for an unknown target."""
    predefined = platform_args(Platform.host())
    made = outline(program, source, Scope(dict(args), predefined, escape=escape), target)
    globals_ = _Taken(Scope(dict(args), predefined, escape=escape, undeclared=predefined))
    for arg in program.global_args:
        globals_.declare(arg)
    taken = _stages(made, globals_)
    found = {**globals_.only(taken.wanted), **taken.arguments}
    stage = program.stages[made.target]
    return BuildOutline(
        target=stage.name or str(stage.index),
        description=_description(stage.from_, stage.name),
        arguments=_by_line(found),
        secrets=_by_line(taken.mounted["secret"]),
        ssh=_by_line(taken.mounted["ssh"]),
        caches=_by_line(taken.mounted["cache"]),
    )


@dataclass(slots=True)
class _Taken:
    """Arguments met so far, and which others their values are made of."""

    scope: Scope
    arguments: dict[str, Argument] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    mounted: dict[str, dict[str, Input]] = field(default_factory=lambda: {"secret": {}, "ssh": {}, "cache": {}})
    _needs: dict[str, set[str]] = field(default_factory=dict)

    def names_in(self, text: str) -> set[str]:
        return Expander(self.scope.escape).expand(text, self.scope.values()).used

    def declare(self, arg: ins.Arg) -> None:
        for name, default in arg.pairs:
            if default is not None and name not in self.scope.given:
                self._needs.setdefault(name, set()).update(self.names_in(default))
        self.scope.declare(arg)
        for name, _ in arg.pairs:
            before = self.arguments.get(name)
            said = _description(arg, name) or (before.description if before else "")
            line = arg.node.range.first
            self.arguments[name] = Argument(name=name, description=said, value=self.scope.args[name], line=line)

    def only(self, names: set[str]) -> dict[str, Argument]:
        """Return the arguments of these names, and those that their values are made of."""
        found: dict[str, Argument] = {}
        pending = [name for name in names if name in self.arguments]
        while pending:
            name = pending.pop()
            if name not in found:
                found[name] = self.arguments[name]
                pending += [other for other in self._needs.get(name, ()) if other in self.arguments]
        return found


def _stages(made: Outline, globals_: _Taken) -> _Taken:
    """Walk the needed stages as a build would, without their files."""
    all_of_them = _Taken(globals_.scope)
    scopes: dict[int, Scope] = {}
    for index in made.needed:
        each = made.stages[index]
        from_ = each.stage.from_
        all_of_them.wanted |= globals_.names_in(f"{from_.image} {from_.platform}")
        fresh = Scope(globals_.scope.given, globals_.scope.predefined, made.global_args, globals_.scope.escape)
        all_of_them.scope = fresh if each.parent is None else scopes[each.parent].child()
        scopes[index] = all_of_them.scope
        for instruction in each.instructions:
            _take(all_of_them, instruction, globals_)
    return all_of_them


def _take(taken: _Taken, instruction: ins.Instruction, globals_: _Taken) -> None:
    if isinstance(instruction, ins.Arg):
        taken.declare(instruction)
        for name, default in instruction.pairs:
            meant = globals_.arguments.get(name)
            if default is None and meant is not None:
                taken.wanted.add(name)
                taken.arguments[name] = replace(
                    meant, description=taken.arguments[name].description or meant.description
                )
    elif isinstance(instruction, ins.Env):
        taken.scope.env.update({name: taken.scope.word(value) for name, value in instruction.pairs})
    elif isinstance(instruction, ins.Run):
        for mount in (parse_mount(text, taken.scope.word) for text in instruction.mounts):
            if mount.type in taken.mounted:
                name = mount.id or (mount.target if mount.type == "cache" else "default")
                line = instruction.node.range.first
                before = taken.mounted[mount.type].get(name)
                taken.mounted[mount.type][name] = (
                    replace(before, required=before.required or mount.required)
                    if before
                    else Input(name=name, required=mount.required, line=line)
                )


def _by_line(found: Mapping[str, T]) -> tuple[T, ...]:
    return tuple(sorted(found.values(), key=lambda each: each.line))


def _description(instruction: ins.Instruction, name: str) -> str:
    """Return what a comment `# NAME description` right above an instruction says."""
    for comment in instruction.node.comments:
        word, _, text = comment.partition(" ")
        if name and word == name:
            return text.strip()
    return ""
