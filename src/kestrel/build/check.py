"""`build --check`: a Dockerfile looked at without running anything, and what could be said about its stages.

`examine` is pure but for what it is given; `Builder.check` reads the files and asks the store about base images that
are here. Nothing is pulled for advice: of an image that is not here only its name is judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kestrel.base.errors import KestrelError
from kestrel.build.lower_from import SCRATCH, outline
from kestrel.build.scope import Scope, platform_args
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.decode import decode, parse_mount
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.ignore import IgnoreList
from kestrel.dockerfile.ignore import parse as parse_ignore
from kestrel.dockerfile.lint import Base, Finding, Options, Subject, lint, options_of
from kestrel.dockerfile.lint_language import CHECKS, WHILE_READING
from kestrel.dockerfile.lint_practice import PRACTICE
from kestrel.dockerfile.nodes import Document, Source
from kestrel.dockerfile.parser import parse_readable
from kestrel.oci.platform import Platform

VIOLATION: Final = "lint violation found for rules:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found. `error` is why the file cannot be built, or which rules were said to be errors; else empty."""

    findings: tuple[Finding, ...]
    error: str = ""
    fixed: str = ""

    @property
    def language(self) -> tuple[Finding, ...]:
        """The findings of rules that `docker build --check` has too."""
        return tuple(f for f in self.findings if not f.rule.practice)


def examine(
    text: "str | bytes",
    *,
    name: str = "Dockerfile",
    ignore: "IgnoreList | str" = "",
    args: Mapping[str, str] | None = None,
    bases: Mapping[str, Base] | None = None,
    target: str = "",
    target_only: bool = False,
    registries: tuple[str, ...] = (),
) -> Checked:
    """Check a file. With `target_only` the stages that the target does not need are left out, as a build does."""
    args = args or {}
    document, failed = parse_readable(text, name)
    try:
        program = decode(document) if failed is None else None
    except DockerfileError as error:
        failed, program = error, None
    options = options_of(document, args)
    subject = Subject(
        document=document,
        program=program or _readable(document),
        args=args,
        platform_args=platform_args(Platform.host()),
        ignore=parse_ignore(ignore) if isinstance(ignore, str) else ignore,
        bases=bases or {},
        registries=registries,
        options=options,
    )
    if program is None:
        return Checked(findings=lint(subject, WHILE_READING), error=failed.message if failed else "")
    complaint = ""
    try:
        needed = _needed(subject, target)
        subject.stages = needed if target_only else None
    except KestrelError as error:
        complaint = error.message
    findings = lint(subject, (*CHECKS, *PRACTICE))
    return Checked(findings=findings, error=complaint or violation(findings, options))


def violation(findings: tuple[Finding, ...], options: Options) -> str:
    """Return the sentence that fails a build whose file says `check=error=true`; empty when nothing does."""
    rules = sorted({finding.rule.name for finding in findings if not finding.rule.practice})
    return f"{VIOLATION} {', '.join(rules)}" if options.error and rules else ""


def _needed(subject: Subject, target: str) -> frozenset[int]:
    document = subject.document
    scope = Scope(dict(subject.args), dict(subject.platform_args), escape=document.escape)
    return frozenset(outline(subject.program, document.source, scope, target).needed)


def _readable(document: Document) -> ins.Program:
    """Decode the instructions before the first that cannot be read."""
    nodes = list(document.nodes)
    while nodes:
        try:
            return decode(Document(source=document.source, nodes=tuple(nodes), directives=document.directives))
        except DockerfileError:
            nodes.pop()
    return ins.Program(global_args=(), stages=())


# What there is to build


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An ARG of the outline: what it is for (the comment above it), its value, and where it stands."""

    name: str
    description: str
    value: str | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A stage that can be built: its name, the comment above it, what it starts from, and its line."""

    name: str
    description: str
    base: str
    line: int
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutline:
    """What a build of a target takes: arguments, secrets and ssh agents, by name."""

    target: str
    description: str
    arguments: tuple[Argument, ...]
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    caches: tuple[str, ...] = field(default=())


def targets(program: ins.Program) -> tuple[Target, ...]:
    """Return the stages of a file that can be named as a target, and the last one."""
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
        if stage.name or stage.index == last
    )


def image_names(text: "str | bytes", name: str, args: Mapping[str, str]) -> tuple[str, ...]:
    """Return the images that a file's stages start from, as far as it can be read."""
    document, _ = parse_readable(text, name)
    subject = Subject(
        document=document, program=_readable(document), args=args, platform_args=platform_args(Platform.host())
    )
    found = [subject.image(s) for s in subject.program.stages if subject.parent(s) is None]
    return tuple(dict.fromkeys(image for image in found if image and image != SCRATCH))


def build_outline(
    source: Source, escape: str, program: ins.Program, target: str, args: Mapping[str, str]
) -> BuildOutline:
    """Return what can be given to a build of a target. Raises DockerfileError for an unknown target."""
    made = outline(program, source, Scope(dict(args), platform_args(Platform.host()), escape=escape), target)
    needed = [each for index in made.needed for each in program.stages[index].instructions]
    arguments: dict[str, Argument] = {}
    for each in (*program.global_args, *needed):
        if isinstance(each, ins.Arg):
            _take(arguments, each, args)
    mounts = [parse_mount(text) for each in needed if isinstance(each, ins.Run) for text in each.mounts]
    stage = program.stages[made.target]
    return BuildOutline(
        target=stage.name or str(stage.index),
        description=_description(stage.from_, stage.name),
        arguments=tuple(arguments.values()),
        secrets=tuple(sorted({m.id for m in mounts if m.type == "secret"})),
        ssh=tuple(sorted({m.id or "default" for m in mounts if m.type == "ssh"})),
        caches=tuple(sorted({m.id or m.target for m in mounts if m.type == "cache"})),
    )


def _take(found: dict[str, Argument], arg: ins.Arg, args: Mapping[str, str]) -> None:
    for name, default in arg.pairs:
        before = found.get(name)
        known = before.value if before else None
        found[name] = Argument(
            name=name,
            description=_description(arg, name) or (before.description if before else ""),
            value=args.get(name, default if default is not None else known),
            line=before.line if before and default is None else arg.node.range.first,
        )


def _description(instruction: ins.Instruction, name: str) -> str:
    """Return what a comment `# NAME description` right above an instruction says."""
    for comment in instruction.node.comments:
        word, _, text = comment.partition(" ")
        if name and word == name:
            return text.strip()
    return ""
