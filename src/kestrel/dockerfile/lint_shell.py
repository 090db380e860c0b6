"""Where a shell will split what a variable or a command gives: expansions outside of quotes, in arguments.

One pass over the characters of a command line, as POSIX has them ("Shell Command Language", 2.2 and 2.6.5): nothing is
split in assignments, in quotes, in arithmetic, or between `case` and `in`; the list of `for` is meant to be. A line
with here-documents of its own is left alone.
"""

import re
from dataclasses import dataclass, field

_NAME = re.compile(r"\{[^}]*\}|\w+")
_DECLARING = ("export", "local", "declare", "readonly", "typeset")
_UNSPLIT = ("for", "case", "[[", "select")
_ENDS = ";|&\n()"
_DEPTH = 64
"""How deep commands in commands are looked into."""


@dataclass(slots=True)
class Expansions:
    """What was found, as written: variables and commands that are split, and commands whose failure a word hides."""

    variables: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)


def expansions(text: str) -> Expansions:
    """Look through a shell line."""
    found = Expansions()
    if "<<" not in text:
        _Scan(text.replace("\\\n", " "), found).run()
    return found


class _Scan:
    def __init__(self, text: str, found: Expansions, depth: int = 0) -> None:
        self._text = text
        self._found = found
        self._depth = depth
        self._first = ""  # of the command
        self._word = ""
        self._quoted = False

    def run(self) -> None:
        at = 0
        while at < len(self._text):
            at = self._step(at)

    def _step(self, at: int) -> int:
        text, character = self._text, self._text[at]
        if character == "\\":
            self._word += text[at : at + 2]
            return at + 2
        if character == "'" and not self._quoted:
            end = text.find("'", at + 1)
            self._word += "'"
            return len(text) if end < 0 else end + 1
        if character == '"':
            self._quoted = not self._quoted
            self._word += '"'
        elif character in "$`":
            return self._expansion(at)
        elif self._quoted or character not in f" \t{_ENDS}":
            self._word += character
        else:
            self._end_word()
            if character in _ENDS:
                self._first = ""
        return at + 1

    def _end_word(self) -> None:
        if self._word and not self._first and not re.match(r"\w+=|(do|then|else|!|\{|if|while|until)$", self._word):
            self._first = self._word
        self._word = ""

    def _expansion(self, at: int) -> int:
        text = self._text
        if text.startswith("$((", at):
            end = text.find("))", at)
            return len(text) if end < 0 else end + 2
        if text[at] == "`" or text.startswith("$(", at):
            end = text.find("`", at + 1) + 1 if text[at] == "`" else _closing(text, at + 2)
            end = end or len(text)
            self._note(text[at:end], self._found.commands)
            if self._first in _DECLARING and re.match(r"\w+=", self._word):
                self._found.hidden.append(f"{self._first} {self._word}{text[at:end]}")
            if self._depth < _DEPTH:
                _Scan(text[at + (1 if text[at] == "`" else 2) : end - 1], self._found, self._depth + 1).run()
            self._word += "$"
            return end
        name = _NAME.match(text, at + 1)
        if name is None:  # $?, $#, a dollar of its own: never more than one word
            self._word += "$"
            return at + 2
        if not name[0].startswith("{#"):
            self._note(f"${name[0]}", self._found.variables)
        self._word += "$"
        return name.end()

    def _note(self, written: str, where: list[str]) -> None:
        declared = self._first in _DECLARING and re.match(r"\w+=", self._word)
        if self._first and self._first not in _UNSPLIT and not self._quoted and not declared:
            where.append(written)


def _closing(text: str, at: int) -> int:
    """Return the place behind the bracket that closes what began before `at`; the end when none does."""
    depth = 1
    while at < len(text) and depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at
