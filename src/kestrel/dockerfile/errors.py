"""The one error of this package: a sentence, and the lines of the file it speaks of.

    unknown instruction `COPPY`
      Dockerfile:7:1
         6 |     WORKDIR /app
         7 | >>> COPPY . .

The excerpt is part of the message, so that every door shows it without knowing what a Dockerfile is.
"""

import re
from collections.abc import Iterable

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.dockerfile.nodes import Node, Range, Source

_QUOTED = re.compile(r"`([^`\n]+)`|(?<!\w)'([^'\n]+)'(?!\w)")
_INNER = re.compile(r"[\w.-]")
"""What a word goes on with: beside it, another word is meant."""
_AROUND = 1
_LONGEST = 12


class DockerfileError(InvalidArgument):
    """The Dockerfile says something that cannot be built.

    `sentence` is the message without the excerpt; `source` and `range` say where; `line` and `column` count from 1
    and point at the first word that the sentence quotes, or at the instruction.
    """

    def __init__(
        self,
        sentence: str,
        *,
        source: Source | None = None,
        where: Range | None = None,
        line: int = 0,
        column: int = 0,
        hint: str | None = None,
    ) -> None:
        self.sentence = sentence
        self.source = source
        self.range = where
        self.line, self.column = line, column
        if source is None or where is None:
            super().__init__(sentence, hint=hint)
            return
        if not column:
            self.line, self.column = _pointed_at(sentence, source, where)
        message = f"{sentence}\n{excerpt(source, where, self.line, self.column)}"
        super().__init__(message, hint=hint, file=source.name, line=self.line, column=self.column)

    @classmethod
    def at(
        cls, node: Node, sentence: str, *, source: Source, offset: int | None = None, hint: str | None = None
    ) -> "DockerfileError":
        """Make the error for an instruction, or for one character of its text."""
        line, column = (0, 0) if offset is None else node.position(offset)
        return cls(sentence, source=source, where=node.range, line=line, column=column, hint=hint)

    def within(self, source: Source, node: Node) -> "DockerfileError":
        """Return this error with a place, if it had none yet."""
        if self.source is not None:
            return self
        return DockerfileError(self.sentence, source=source, where=node.range, hint=self.hint)


def _pointed_at(sentence: str, source: Source, where: Range) -> tuple[int, int]:
    """Return line and column of the first word that is quoted, if it stands in the range, else of the range's begin."""
    quoted = _QUOTED.search(sentence)
    if quoted is not None:
        text = quoted[1] or quoted[2]
        before = r"(?<![\w.-])" if _INNER.match(text) else ""
        after = r"(?![\w.-])" if _INNER.match(text[-1]) else ""
        word = re.compile(before + re.escape(text) + after)
        for number in range(where.first, where.last + 1):
            found = word.search(source.lines[number - 1])
            if found is not None:
                return number, found.start() + 1
    text = source.lines[where.first - 1]
    return where.first, len(text) - len(text.lstrip()) + 1


def excerpt(source: Source, where: Range, line: int = 0, column: int = 0) -> str:
    """Print the lines of a range with their neighbours, the range marked with `>>>`."""
    place = f"{source.name}:{line or where.first}" + (f":{column}" if column else "")
    end = len(source.lines) - (len(source.lines) > 1 and not source.lines[-1])
    first, last = max(1, where.first - _AROUND), max(where.last, min(end, where.last + _AROUND))
    width = len(str(last))
    shown = [f"  {place}"]
    for number in _shorten(first, last):
        if number is None:
            shown.append(f"   {'':>{width}} | ...")
            continue
        mark = ">>>" if where.first <= number <= where.last else "   "
        shown.append(f"   {number:>{width}} | {mark} {_printable(source.lines[number - 1])}".rstrip())
    return "\n".join(shown)


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """Return ``did you mean `X`?`` for a mistyped word, or None when nothing is near."""
    found = nearest(word, known)
    return None if found is None else f"did you mean `{found}`?"


def _shorten(first: int, last: int) -> list[int | None]:
    """Return the line numbers to show; None stands for those left out of a long instruction."""
    if last - first < _LONGEST:
        return list(range(first, last + 1))
    half = _LONGEST // 2
    return [*range(first, first + half), None, *range(last - half + 1, last + 1)]


def _printable(line: str) -> str:
    """Control characters of a stranger's file must not reach a terminal."""
    line = line.replace("\t", "    ")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line[:200])
