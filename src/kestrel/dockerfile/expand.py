r"""Variables in a Dockerfile: a shell's words and `${...}` forms, without a shell.

Follows the rules of https://docs.docker.com/reference/dockerfile/#environment-replacement and, for the forms, POSIX
2.6.2:

    $v ${v}                  the value, or nothing
    ${v:-w} ${v-w}           w when v is unset (or, with the colon, empty)
    ${v:+w} ${v+w}           w when v is set (and not empty)
    ${v:?m} ${v?m}           an error saying m when it is not
    ${v#p} ${v##p}           without the shortest/longest prefix that matches p;  % and %% do it for suffixes
    ${v/p/r} ${v//p/r}       the first/every match of p replaced

`w`, `m` and `r` are expanded in turn. Single quotes keep everything, double quotes keep white space, the escape
character (backslash, or backtick by directive) keeps the next character. `:=` would assign, and is an error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.glob import Matcher, variable_pattern

_DEPTH = 64
_SPACE = re.compile(r"\s+")
_SPECIAL = "@*#?-$!"
MAX_LENGTH = 1 << 20
"""Longest result in characters: replacements nest, and would otherwise grow without bound."""


@dataclass(slots=True)
class Expansion:
    """What came of a text: its `words`, and which variables it named.

    `used` were set; `unset` were not; `defaulted` were not either, but the text says what to put instead.
    """

    words: list[str]
    used: set[str] = field(default_factory=set)
    unset: set[str] = field(default_factory=set)
    defaulted: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Expander:
    """The rules in force: the escape character, and what is left as it was written.

    `raw_quotes` keeps quotes, `raw_escapes` keeps escape characters, `keep_unset` leaves `$v` alone when v is unset.
    `plain_quotes` gives quotes no meaning at all, as in the body of a here-document (POSIX 2.7.4).
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False
    plain_quotes: bool = False

    def word(self, text: str, env: Mapping[str, str]) -> str:
        """Expand to one word, white space kept. Raises DockerfileError."""
        return self.expand(text, env).words[0]

    def words(self, text: str, env: Mapping[str, str]) -> list[str]:
        """Expand and split at white space that is not quoted; values of variables are split too."""
        return self.expand(text, env, split=True).words

    def expand(self, text: str, env: Mapping[str, str], *, split: bool = False) -> Expansion:
        """Expand and also tell which variables were met. Without `split` there is exactly one word."""
        if "$" not in text and not split and not any(c in text for c in "'\"" + self.escape):
            return Expansion([text])
        run = _Run(self, text, env, split)
        whole = run.until("", depth=0)
        return Expansion(run.take_words() if split else [whole], run.used, run.unset, run.defaulted)


class _Run:
    """One pass over one text."""

    def __init__(self, rules: Expander, text: str, env: Mapping[str, str], split: bool) -> None:
        self._rules = rules
        self._text = text
        self._env = env
        self._at = 0
        self._words: list[str] = []
        self._word: list[str] = []
        self._split = split
        self._open = 0  # where the innermost substitution begins
        self._ordinary = re.compile(rf"[^'\"$/}}{re.escape(rules.escape)}]+")
        self.used: set[str] = set()
        self.unset: set[str] = set()
        self.defaulted: set[str] = set()

    def take_words(self) -> list[str]:
        self._end_word()
        return self._words

    # Scanning

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def until(self, stop: str, *, depth: int, raw_escapes: bool = False) -> str:
        """Expand up to an unquoted `stop` (consumed), or to the end when `stop` is empty."""
        if depth > _DEPTH:
            raise DockerfileError("variables are nested too deeply")
        out: list[str] = []
        length = 0
        splitting = self._split and depth == 0
        while (character := self._peek()) != "":
            if character == stop:
                self._at += 1
                return "".join(out)
            if self._rules.plain_quotes and character in "'\"":
                part, split = self._next(), False
            elif character == "'":
                part, split = self._single_quoted(), False
            elif character == '"':
                part, split = self._double_quoted(depth), False
            elif character == "$":
                part, split = self._dollar(depth), True
            else:
                part, split = self._plain(raw_escapes or self._rules.raw_escapes)
            length += len(part)
            if length > MAX_LENGTH:
                raise DockerfileError(f"the expansion is longer than {MAX_LENGTH} characters")
            out.append(part)
            if splitting:
                self._collect(part, split=split)
        if stop:
            raise self._unclosed(stop)
        return "".join(out)

    def _unclosed(self, stop: str) -> DockerfileError:
        missing = f"missing `{stop}`" + ("" if stop == "}" else " before the replacement")
        return DockerfileError(f"`{self._rest(self._open)}` is not complete: {missing}")

    def _rest(self, begin: int) -> str:
        return self._text[begin:].partition("\n")[0]

    def _plain(self, raw_escapes: bool) -> tuple[str, bool]:
        if ordinary := self._ordinary.match(self._text, self._at):
            self._at = ordinary.end()
            return ordinary[0], True
        character = self._next()
        if character != self._rules.escape:
            return character, True
        escaped = self._next()
        return (character + escaped if raw_escapes else escaped), False

    def _single_quoted(self) -> str:
        begin = self._at
        end = self._text.find("'", begin + 1)
        if end < 0:
            raise DockerfileError(f"`{self._rest(begin)}` opens a single quote that is not closed")
        self._at = end + 1
        return self._text[begin : end + 1] if self._rules.raw_quotes else self._text[begin + 1 : end]

    def _double_quoted(self, depth: int) -> str:
        begin = self._at
        quote = self._next()
        out = [quote] if self._rules.raw_quotes else []
        while (character := self._peek()) != "":
            if character == '"':
                self._at += 1
                return "".join([*out, quote] if self._rules.raw_quotes else out)
            if character == "$":
                out.append(self._dollar(depth))
                continue
            self._at += 1
            if character == self._rules.escape:
                after = self._peek()
                # Inside double quotes only these lose their escape character (POSIX 2.2.3).
                if after in ('"', "$", self._rules.escape):
                    self._at += 1
                    character = character + after if self._rules.raw_escapes else after
            out.append(character)
        raise DockerfileError(f"`{self._rest(begin)}` opens a double quote that is not closed")

    # Words

    def _collect(self, part: str, *, split: bool) -> None:
        if not split:
            self._word.append(part)
            return
        for position, piece in enumerate(_SPACE.split(part)):
            if position:
                self._end_word()
            self._word.append(piece)

    def _end_word(self) -> None:
        word = "".join(self._word)
        if word:
            self._words.append(word)
        self._word.clear()

    # Variables

    def _name(self) -> str:
        character = self._peek()
        if character and character in _SPECIAL:
            return self._next()
        begin = self._at
        if character.isdigit():
            while self._peek().isdigit():
                self._at += 1
            return self._text[begin : self._at]
        while (c := self._peek()) == "_" or c.isalnum():
            self._at += 1
        return self._text[begin : self._at]

    def _lookup(self, name: str) -> "str | None":
        value = self._env.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _dollar(self, depth: int) -> str:
        outer, self._open = self._open, self._at
        value = self._substituted(depth)
        self._open = outer
        return value

    def _substituted(self, depth: int) -> str:
        begin = self._at
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._lookup(name)
            return (self._text[begin : self._at] if self._rules.keep_unset else "") if value is None else value
        self._at += 1
        if self._peek() in ("", "{", "}", ":"):
            if not self._peek():
                raise self._unclosed("}")
            raise DockerfileError(f"`{self._text[begin : self._at + 1]}` is a bad substitution: it names no variable")
        name = self._name()
        form = self._next()
        if form == "":
            raise self._unclosed("}")
        if form == "}":
            value = self._lookup(name)
            return (self._text[begin : self._at] if self._rules.keep_unset else "") if value is None else value
        value = self._form(name, form, depth)
        return self._text[begin : self._at] if value is None else value

    def _form(self, name: str, form: str, depth: int) -> "str | None":
        """Carry out what follows the name in `${name...}`; None leaves it as it was written."""
        if form == ":" and self._peek() in ("-", "+", "?"):
            return self._conditional(name, self._next(), depth, empty_counts=True)
        if form in ("-", "+", "?"):
            return self._conditional(name, form, depth, empty_counts=False)
        if form in ("#", "%"):
            return self._trim(name, form, depth)
        if form == "/":
            return self._replace(name, depth)
        written = form + self._peek() if form == ":" else form
        hint = "a build cannot assign; use `:-`" if written == ":=" else None
        raise DockerfileError(f"unsupported modifier `{written}` in the substitution of `{name}`", hint=hint)

    def _conditional(self, name: str, form: str, depth: int, *, empty_counts: bool) -> "str | None":
        word = self.until("}", depth=depth + 1)
        value = self._lookup(name)
        present = value is not None and not (empty_counts and value == "")
        if form in ("-", "+"):
            if value is None:  # the text says what then: it is no oversight
                self.unset.discard(name)
                self.defaulted.add(name)
            return (value if present else word) if form == "-" else (word if present else "")
        if not present:
            state = "is not set" if value is None else "is empty"
            raise DockerfileError(f"`{name}` {state}" + (f": {word}" if word else ""))
        return value

    def _trim(self, name: str, form: str, depth: int) -> "str | None":
        longest = self._peek() == form
        if longest:
            self._at += 1
        pattern = self.until("}", depth=depth + 1, raw_escapes=True)
        value = self._lookup(name)
        if value is None:
            return None if self._rules.keep_unset else ""
        tokens = variable_pattern(pattern, self._rules.escape)
        if form == "#":
            ends = list(Matcher([tokens]).prefixes(value))
            return value[(ends[-1] if longest else ends[0]) :] if ends else value
        ends = list(Matcher([tokens[::-1]]).prefixes(value[::-1]))
        return value[: len(value) - (ends[-1] if longest else ends[0])] if ends else value

    def _replace(self, name: str, depth: int) -> "str | None":
        everywhere = self._peek() == "/"
        if everywhere:
            self._at += 1
        pattern = self.until("/", depth=depth + 1, raw_escapes=True)
        replacement = self.until("}", depth=depth + 1, raw_escapes=True)
        value = self._lookup(name)
        if value is None:
            return None if self._rules.keep_unset else ""
        return _substitute(value, Matcher([variable_pattern(pattern, self._rules.escape)]), replacement, everywhere)


def _substitute(value: str, matcher: Matcher, replacement: str, everywhere: bool) -> str:
    """Replace the leftmost longest match, or all of them from left to right."""
    out: list[str] = []
    at = length = 0
    while at <= len(value):
        end = max(matcher.prefixes(value, at), default=-1)
        if end < 0 or (end == at and at == len(value) and out):
            out.append(value[at : at + 1])
            at += 1
            continue
        out.append(replacement)
        length += len(replacement)
        if length > MAX_LENGTH:
            raise DockerfileError(f"the expansion is longer than {MAX_LENGTH} characters")
        if end == at:  # the empty match: keep the character after it, or this would not end
            out.append(value[at : at + 1])
            end += 1
        at = end
        if not everywhere:
            break
    return "".join([*out, value[at:]])
