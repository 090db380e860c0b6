"""The eighteen instructions as values, one frozen dataclass each.

Values are as written until `expanded` is called with the variables in force; it returns a copy in which every part
that the language expands has been (https://docs.docker.com/reference/dockerfile/#environment-replacement), so a
plan holds nothing that still depends on its place in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from kestrel.dockerfile.nodes import Heredoc, Node


class Variables(Protocol):
    """The variables in force at one place of the file."""

    def word(self, text: str) -> str:
        """Expand a text to one word."""
        ...

    def words(self, text: str) -> list[str]:
        """Expand a text and split it at white space."""
        ...

    def body(self, text: str) -> str:
        """Expand the body of a here-document, in which quotes mean nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What RUN, CMD, ENTRYPOINT and HEALTHCHECK hold: an argument vector, or one line for the shell."""

    argv: tuple[str, ...]
    shell: bool

    @property
    def line(self) -> str:
        """The shell line; only meaningful when `shell`."""
        return self.argv[0] if self.argv else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What all have in common: where it came from."""

    node: Node

    def expanded(self, variables: Variables) -> Self:  # noqa: ARG002 - overridden where there is something to do
        """Return a copy with the variables put in; the default for instructions that are taken literally."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """FROM [--platform=P] IMAGE [AS NAME]."""

    image: str
    name: str = ""
    platform: str = ""

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in; only global ARGs and predefined ones are in scope here."""
        return replace(self, image=variables.word(self.image), platform=variables.word(self.platform))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """ARG NAME[=DEFAULT] ..."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Instruction):
    """ENV and LABEL: names and values. `legacy` is the form without an equals sign."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in; all pairs of a line see the values from before the line."""
        return replace(self, pairs=tuple((variables.word(name), variables.word(value)) for name, value in self.pairs))


class Env(Pairs):
    """ENV NAME=VALUE ..."""

    __slots__ = ()


class Label(Pairs):
    """LABEL NAME=VALUE ..."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One `--mount` of a RUN. Sizes in bytes; `mode`, `uid`, `gid` None where not given."""

    type: str = "bind"
    target: str = ""
    source: str = ""
    from_: str = ""
    id: str = ""
    env: str = ""
    sharing: str = "shared"
    read_only: bool = False
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """RUN [flags] COMMAND. `mounts` are as written; `mounts.parse_mount` reads them."""

    command: Command
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Instruction):
    """COPY and ADD: sources into a destination. `inline` are here-documents that stand for files."""

    sources: tuple[str, ...]
    destination: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    inline: tuple[Heredoc, ...] = ()

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in; `--from` is not expanded, as the reference says."""
        return replace(
            self,
            sources=tuple(map(variables.word, self.sources)),
            destination=variables.word(self.destination),
            chown=variables.word(self.chown),
            chmod=variables.word(self.chmod),
            exclude=tuple(map(variables.word, self.exclude)),
            inline=tuple(replace(h, content=variables.body(h.content)) if h.expand else h for h in self.inline),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Transfer):
    """COPY [flags] SOURCE... DESTINATION."""

    from_: str = ""
    parents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Transfer):
    """ADD [flags] SOURCE... DESTINATION. `unpack` None means: local archives yes, remote ones no."""

    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in, the checksum's too."""
        return replace(Transfer.expanded(self, variables), checksum=variables.word(self.checksum))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """WORKDIR PATH."""

    path: str

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in."""
        return replace(self, path=variables.word(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """USER NAME[:GROUP]."""

    user: str

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in."""
        return replace(self, user=variables.word(self.user))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """CMD: default arguments, or the default command."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """ENTRYPOINT: the command that arguments are given to."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """EXPOSE PORT[/PROTOCOL] ..."""

    ports: tuple[str, ...]

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in; a value may hold several ports."""
        return replace(self, ports=tuple(port for text in self.ports for port in variables.words(text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """VOLUME PATH ..."""

    paths: tuple[str, ...]

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in."""
        return replace(self, paths=tuple(map(variables.word, self.paths)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """STOPSIGNAL NAME or number."""

    signal: str

    def expanded(self, variables: Variables) -> Self:
        """Put the variables in."""
        return replace(self, signal=variables.word(self.signal))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """SHELL ["program", "argument"...]: what shell forms run in."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """HEALTHCHECK NONE, or CMD with times in seconds (None where not given)."""

    command: Command | None
    interval: float | None = None
    timeout: float | None = None
    start_period: float | None = None
    start_interval: float | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    """ONBUILD INSTRUCTION: text kept in the image for builds on top of it. `trigger` is its decoded form."""

    expression: str
    trigger: Instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """MAINTAINER NAME (deprecated; a label says it better)."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM and what follows it. `name` is lower case, empty when not given."""

    index: int
    from_: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The name after AS, or empty."""
        return self.from_.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A decoded Dockerfile: the ARGs before the first FROM, then the stages."""

    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    directives: Mapping[str, str] = field(default_factory=dict)
