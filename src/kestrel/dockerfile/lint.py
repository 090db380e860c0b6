"""Advice on a Dockerfile: what is legal and still likely to be regretted, each with its line and, where one is
certain, the text that would be better.

Rules come in two groups. Those of the *language* have the names and sentences that `docker build --check` gives them
(https://docs.docker.com/reference/build-checks/), so that a `# check=skip=` line works in both. Those of *practice*
are about packages, layers and users.

What is checked is said in the file (`# check=skip=A,B;error=true` at the top, or right above one instruction, where
it holds for that one) or by the request, which then replaces what the top of the file says.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.decode import decode_node
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.expand import Expander
from kestrel.dockerfile.ignore import IgnoreList
from kestrel.dockerfile.nodes import Document, Node, Range
from kestrel.dockerfile.parser import parse_readable

_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
_DIRECTIVE = re.compile(r"\s*#\s*check\s*=", re.IGNORECASE)
_DOCS = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing to look for. `page` is the last part of the address that explains it; practice rules have none."""

    name: str
    description: str
    page: str = ""
    experimental: bool = False

    @property
    def url(self) -> str:
        """Where the rule is explained, or empty."""
        return f"{_DOCS}{self.page}/" if self.page else ""

    @property
    def practice(self) -> bool:
        """Whether it is one of ours and not of the language."""
        return not self.page and self.name != "InvalidBaseImagePlatform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that holds at some lines. `fix` replaces those lines when it is not empty; `advice` says it in words."""

    rule: Rule
    detail: str
    line: int
    last: int
    advice: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which rules are on: all but the experimental ones, unless said otherwise."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    def wants(self, rule: Rule) -> bool:
        """Tell whether a rule is on."""
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not self.skip_all and rule.name not in self.skip

    def merged(self, other: "Options") -> "Options":
        """Return these with what another one switches off or on besides."""
        return replace(
            self,
            skip=self.skip | other.skip,
            skip_all=self.skip_all or other.skip_all,
            experimental=self.experimental | other.experimental,
            experimental_all=self.experimental_all or other.experimental_all,
        )


def parse_options(text: str) -> Options:
    """Read `skip=A,B;error=true;experimental=all`; what follows white space is a remark. Raises DockerfileError."""
    found: dict[str, str] = {}
    for part in (text.split() or [""])[0].split(";"):
        name, equals, value = part.partition("=")
        if not part:
            continue
        if not equals or name.strip() not in ("skip", "experimental", "error"):
            raise DockerfileError(
                f"invalid check option `{part}`", hint="write skip=RULE,RULE, experimental=RULE or error=true"
            )
        found[name.strip()] = value.strip()
    if found.get("error", "false").lower() not in ("true", "false", "1", "0"):
        raise DockerfileError(
            f"`error` of a check cannot be `{found['error']}`", hint="write error=true or error=false"
        )
    skip, experimental = found.get("skip", ""), found.get("experimental", "")
    return Options(
        skip=_names(skip),
        skip_all=skip == "all",
        experimental=_names(experimental),
        experimental_all=experimental == "all",
        error=found.get("error", "false").lower() in ("true", "1"),
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What is known of a base image; nothing by default."""

    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/bin"})
    shell: tuple[str, ...] = ()
    user: str = ""
    platform: str = ""
    expected: str = ""


@dataclass(slots=True, kw_only=True)
class Subject:
    """A file under examination, and what has been found so far.

    `args` are the request's; `platform_args` the predefined ones; `bases` what is known of images by name. Without
    `stages` (indices) all are looked at.
    """

    document: Document
    program: ins.Program
    args: Mapping[str, str] = field(default_factory=dict)
    platform_args: Mapping[str, str] = field(default_factory=dict)
    ignore: IgnoreList | None = None
    bases: Mapping[str, Base] = field(default_factory=dict)
    registries: tuple[str, ...] = ()
    stages: frozenset[int] | None = None
    options: Options = field(default_factory=Options)
    findings: list[Finding] = field(default_factory=list)

    def selected(self) -> list[ins.Stage]:
        """Return the stages to look at."""
        return [s for s in self.program.stages if self.stages is None or s.index in self.stages]

    def report(self, rule: Rule, node: Node, detail: str, *, line: int = 0, advice: str = "", fix: str = "") -> None:
        """Note that a rule holds for an instruction, unless it is switched off there.

        A fix of several lines would lose the comments between them, so there is none.
        """
        options = self.options
        for comment in node.comments:
            name, equals, value = comment.partition("=")
            if equals and name.strip().lower() == "check":
                try:
                    options = options.merged(parse_options(value.strip()))
                except DockerfileError:
                    pass  # what cannot be read switches nothing
                break
        if not options.wants(rule):
            return
        self.findings.append(
            Finding(
                rule=rule,
                detail=detail,
                line=line or node.range.first,
                last=max(line, node.range.last),
                advice=advice,
                fix=fix if node.range.first == node.range.last and self.read(fix) is not None else "",
            )
        )

    def read(self, line: str) -> ins.Instruction | None:
        """Read a line as it would be in this file; None when it is not just one instruction."""
        document, error = parse_readable(f"# escape={self.document.escape}\n{line}")
        if error is not None or len(document.nodes) != 1:
            return None
        try:
            return decode_node(document.nodes[0], document.source, document.escape)
        except DockerfileError:
            return None

    def global_values(self, *, given: bool = True) -> dict[str, str]:
        """Return the ARGs before the first FROM, with the request's values or with the defaults alone."""
        values = dict(self.platform_args)
        for arg in self.program.global_args:
            for name, default in arg.pairs:
                if given and name in self.args:
                    values[name] = self.args[name]
                elif default is not None:
                    try:
                        values[name] = Expander(self.document.escape).word(default, values)
                    except DockerfileError:
                        continue
        return values

    def parent(self, stage: ins.Stage) -> ins.Stage | None:
        """Return the stage that a stage builds on."""
        name = self.image(stage).lower()
        return next((s for s in reversed(self.program.stages[: stage.index]) if s.name and s.name == name), None)

    def image(self, stage: ins.Stage) -> str:
        """Return the name after FROM with its variables put in, or as written where that fails."""
        try:
            return Expander(self.document.escape).word(stage.from_.image, self.global_values())
        except DockerfileError:
            return stage.from_.image


Check = Callable[[Subject], None]


def lint(subject: Subject, checks: Iterable[Check]) -> tuple[Finding, ...]:
    """Run the checks and return what they found in the order of the lines."""
    for check in checks:
        check(subject)
    return tuple(sorted(subject.findings, key=lambda f: (f.line, f.rule.practice, f.detail)))


def options_of(document: Document, args: Mapping[str, str]) -> Options:
    """Return the options in force: the build argument BUILDKIT_DOCKERFILE_CHECK, else the file's directive."""
    given = args.get(_ARGUMENT)
    try:
        return parse_options(document.directives.get("check", "") if given is None else given)
    except DockerfileError as error:
        if given is not None:
            raise DockerfileError(f"{error.sentence} in the build argument {_ARGUMENT}", hint=error.hint) from None
        lines = enumerate(document.source.lines, 1)
        number = next(number for number, line in lines if _DIRECTIVE.match(line))
        where = Range(number, number)
        raise DockerfileError(error.sentence, source=document.source, where=where, hint=error.hint) from None


def apply_fixes(text: str, findings: Iterable[Finding]) -> tuple[str, list[Finding]]:
    """Return a file's text with the certain fixes put in, and those that were: a line takes one at a time.

    Of two that touch a line the first wins. Lines end as they did.
    """
    lines = text.split("\n")
    free = len(lines) + 1
    put: list[Finding] = []
    for found in sorted(findings, key=lambda each: -each.line):
        if found.fix and found.last < free:
            end = "\r" if lines[found.line - 1].endswith("\r") else ""
            lines[found.line - 1 : found.last] = [line + end for line in found.fix.split("\n")]
            free = found.line
            put.insert(0, found)
    return "\n".join(lines), put
