"""`build --check`: a Dockerfile looked at without running anything.

`examine` is pure but for what it is given; `Builder.check` reads the files and asks the store about base images that
are here. Nothing is pulled for advice: of an image that is not here only its name is judged.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from kestrel.base.errors import KestrelError
from kestrel.build.graph import BaseImage
from kestrel.build.lower_from import SCRATCH, Named, Outline, check_references, outline
from kestrel.build.plan import Planner
from kestrel.build.scope import Scope, platform_args
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.decode import decode
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.ignore import IgnoreList
from kestrel.dockerfile.ignore import parse as parse_ignore
from kestrel.dockerfile.lint import Base, Finding, Options, Subject, apply_fixes, lint, options_of
from kestrel.dockerfile.lint_language import CHECKS, WHILE_READING
from kestrel.dockerfile.lint_practice import PRACTICE
from kestrel.dockerfile.nodes import Document
from kestrel.dockerfile.parser import parse_readable
from kestrel.oci.config import ContainerDefaults, ImageConfig
from kestrel.oci.platform import Platform

VIOLATION: Final = "lint violation found for rules:"
_ROUNDS: Final = 20
_ABSENT: Final = re.compile("^`[^`]*` is (not set|empty)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found. `error` is why the file cannot be built, or which rules were said to be errors; else empty."""

    findings: tuple[Finding, ...]
    error: str = ""

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
    named: Named | None = None,
    planned: bool = False,
) -> Checked:
    """Check a file. With `target_only` the stages that the target does not need are left out, as a build does.

    With `planned` what a build would refuse before it runs anything is an error of the check, in every stage.
    """
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
        found = _outline(subject, target, named or Named())
        subject.stages = frozenset(found.needed) if target_only else None
        if planned:
            _plan(subject, found)
    except KestrelError as error:
        complaint = error.message
    findings = lint(subject, (*CHECKS, *PRACTICE))
    return Checked(findings=findings, error=complaint or violation(findings, options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A file's text with every certain fix, which findings these were (lines as they were then), and what is left."""

    text: str
    fixes: tuple[Finding, ...]
    left: Checked


def mend(text: str, look: Callable[[str], Checked]) -> Fixed:
    """Put fixes in until there is none: a line takes one at a time, and one may make room for another."""
    fixes: list[Finding] = []
    for _ in range(_ROUNDS):
        checked = look(text)
        better, put = apply_fixes(text, checked.findings)
        if better == text:
            break
        text = better
        fixes += put
    return Fixed(text=text, fixes=tuple(fixes), left=look(text))


def violation(findings: tuple[Finding, ...], options: Options) -> str:
    """Return the sentence that fails a build whose file says `check=error=true`; empty when nothing does."""
    rules = sorted({finding.rule.name for finding in findings if not finding.rule.practice})
    return f"{VIOLATION} {', '.join(rules)}" if options.error and rules else ""


def _outline(subject: Subject, target: str, named: Named) -> Outline:
    document = subject.document
    scope = Scope(dict(subject.args), dict(subject.platform_args), escape=document.escape)
    return outline(subject.program, document.source, scope, target, named)


def _plan(subject: Subject, found: Outline) -> None:
    """Plan all stages, on what is known of their base images. Raises KestrelError."""
    document = subject.document
    whole = replace(found, needed=tuple(range(len(found.stages))))
    for stage in found.stages:
        for instruction in stage.stage.instructions:
            check_references(found, stage.stage.index, instruction, document.source)
    unknown = False
    bases = {}
    for name in whole.images():
        known = subject.bases.get(name)
        unknown = unknown or known is None
        env = tuple(f"{key}={value}" for key, value in (known or Base()).environment.items())
        bases[name] = BaseImage(name=name, image=ImageConfig(config=ContainerDefaults(env=env)))
    planner = Planner(
        outline=whole,
        source=document.source,
        escape=document.escape,
        bases=bases,
        given=subject.args,
        predefined=subject.platform_args,
        host_network=True,  # that is for the build to grant
    )
    try:
        planner.plan()
    except DockerfileError as error:
        # What `${NAME:?}` asks for may be in the environment of an image that is not here.
        if not (unknown and _ABSENT.search(error.sentence)):
            raise


def _readable(document: Document) -> ins.Program:
    """Decode the instructions before the first that cannot be read."""
    nodes = list(document.nodes)
    while nodes:
        try:
            return decode(Document(source=document.source, nodes=tuple(nodes), directives=document.directives))
        except DockerfileError:
            nodes.pop()
    return ins.Program(global_args=(), stages=())


def image_names(text: "str | bytes", name: str, args: Mapping[str, str]) -> tuple[str, ...]:
    """Return the images that a file's stages start from, as far as it can be read."""
    document, _ = parse_readable(text, name)
    subject = Subject(
        document=document, program=_readable(document), args=args, platform_args=platform_args(Platform.host())
    )
    found = [subject.image(s) for s in subject.program.stages if subject.parent(s) is None]
    return tuple(dict.fromkeys(image for image in found if image and image != SCRATCH))
