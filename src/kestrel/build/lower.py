"""A stage while it is being lowered: what the instructions so far have made of it.

Each `lower_*` module takes this and an instruction, and changes it: a configuration edit, a step appended, a line of
history. Nothing here reads a file or runs anything.
"""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kestrel.base.errors import InvalidArgument
from kestrel.build.graph import BaseImage, Context, Filesystem, Operation, Origin, Place, Record, Step
from kestrel.build.scope import Scope
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.instructions import Instruction
from kestrel.dockerfile.nodes import Source
from kestrel.oci.config import ContainerDefaults

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")

FindOrigin = Callable[[str], Origin | Step | Context]
"""Resolves what `--from` names: a stage before this one, a named context, or an image."""


@dataclass(slots=True, kw_only=True)
class Lowering:
    """The mutable middle of planning one stage."""

    name: str
    index: int
    source: Source
    scope: Scope
    config: ContainerDefaults
    base: BaseImage | None
    filesystem: Filesystem
    epoch: int
    find: FindOrigin
    network: str = "default"
    hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    host_network: bool = False
    """Whether a RUN may ask for the host's network: who asks for the build says so."""
    history: list[Record] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    cmd_set: bool = False
    author: str = ""

    @property
    def label(self) -> str:
        """How progress calls the stage: its name, or its number."""
        return self.name or f"stage-{self.index}"

    @property
    def shell(self) -> tuple[str, ...]:
        """What shell forms run in."""
        return self.config.shell or DEFAULT_SHELL

    @property
    def cwd(self) -> str:
        """The working directory, absolute and cleaned."""
        return clean(posixpath.join("/", self.config.working_dir))

    def configure(self, **changes: Any) -> None:
        """Change fields of the configuration."""
        self.config = msgspec.structs.replace(self.config, **changes)

    def record(self, created_by: str, step: Step | None = None) -> None:
        """Add a line of history."""
        self.history.append(Record(created_by=created_by, step=step))

    def step(self, instruction: Instruction, operation: Operation, created_by: str) -> None:
        """Add a step on top of what there is."""
        step = Step(
            id=f"{self.label}/{len(self.steps) + 1}",
            title=title(instruction.node.text),
            stage=self.label,
            place=Place(source=self.source, range=instruction.node.range),
            parent=self.filesystem,
            operation=operation,
            epoch=self.epoch,
        )
        self.steps.append(step)
        self.filesystem = step
        self.record(created_by, step)

    def absolute(self, path: str) -> str:
        """Return a path joined to the working directory and cleaned; a slash at the end is lost."""
        return clean("/" + posixpath.join(self.cwd, path))

    def error(self, instruction: Instruction, sentence: str, *, hint: str | None = None) -> DockerfileError:
        """Make an error that points at an instruction."""
        return DockerfileError.at(instruction.node, sentence, source=self.source, hint=hint)


def placed(error: InvalidArgument, place: Place) -> DockerfileError:
    """Give an error that knows no place the one of an instruction."""
    return DockerfileError(error.message, source=place.source, where=place.range, hint=error.hint)


def clean(path: str) -> str:
    """Clean a path as Go does: POSIX keeps two leading slashes apart, Go does not."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def title(text: str) -> str:
    """Return an instruction as one line for people."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."
