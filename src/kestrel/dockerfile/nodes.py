"""What the parser hands on: one `Node` for each instruction, and where in the text each part of it stood.

Everything here is a value. Lines count from 1 as editors do; a column counts characters from 1.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Range:
    """Lines from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first)


@dataclass(frozen=True)
class Source:
    """A Dockerfile's text with the name people know it by."""

    name: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends; only a newline ends a line, and a carriage return before it goes too."""
        return [line.removesuffix("\r") for line in self.text.split("\n")]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text from `offset` of a joined line on stood in `line` at `column`."""

    offset: int
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A here-document: `<<NAME`, `<<-NAME` (tabs stripped), `<<"NAME"` (nothing expanded), `3<<NAME`."""

    name: str
    content: str
    expand: bool
    strip_tabs: bool
    descriptor: str = ""
    range: Range

    @property
    def body(self) -> str:
        """The content as the instruction is to see it: without leading tabs when `<<-` asked so."""
        if not self.strip_tabs:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


@dataclass(frozen=True, slots=True)
class Flag:
    """One `--name=value` before the arguments, quotes and escapes already taken off."""

    name: str
    value: str | None
    offset: int

    def __str__(self) -> str:
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One instruction as written, continuation lines joined and comments taken out.

    `text` is the joined line, `arguments` what follows keyword and flags. `comments` are the comment lines right
    above it (without `#`): documentation for FROM and ARG, `check=` directives for the linter.
    """

    keyword: str
    written: str
    flags: tuple[Flag, ...]
    arguments: str
    arguments_offset: int
    text: str
    range: Range
    pieces: tuple[Piece, ...]
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    empty_continuations: tuple[int, ...] = ()
    """Lines that are blank inside a continuation, which the language tolerates and a linter names."""

    def position(self, offset: int) -> tuple[int, int]:
        """Return the (line, column) of a character of `text`."""
        index = bisect_right(self.pieces, offset, key=lambda piece: piece.offset) - 1
        piece = self.pieces[max(index, 0)]
        return piece.line, piece.column + offset - piece.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed Dockerfile: directives first, then the instructions in order."""

    source: Source
    nodes: tuple[Node, ...]
    directives: Mapping[str, str] = field(default_factory=dict)

    @property
    def escape(self) -> str:
        """The character that continues lines and escapes others: backslash, or backtick by directive."""
        return self.directives.get("escape", "\\")
