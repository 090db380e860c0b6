r"""Characters to logical lines: directives, comments, continuations and the bodies of here-documents.

The rules, as `docker build` applies them (https://docs.docker.com/reference/dockerfile/#format):

- leading comment lines of the form `# name=value` are directives until anything else is met;
- a line whose first visible character is `#` is a comment, between continued lines too;
- the escape character at the end of a line, spaces after it allowed, joins the next line; doubled it does not;
- blank lines inside a continuation are passed over;
- a here-document's lines are taken as they are, up to its name alone on a line.

The lexer knows no instruction: the parser asks for a line, and then for the bodies that line announced.
"""

import re
from dataclasses import dataclass

from kestrel.dockerfile.errors import DockerfileError, suggestion
from kestrel.dockerfile.nodes import Heredoc, Piece, Range, Source

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
DIRECTIVES = ("syntax", "escape", "check")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One logical line: continued lines joined, `pieces` telling where each part stood."""

    text: str
    range: Range
    pieces: tuple[Piece, ...]
    comments: tuple[str, ...]
    empty_continuations: tuple[int, ...]


def directives(source: Source) -> dict[str, str]:
    """Return the parser directives by lower-case name. Raises DockerfileError for a repeated or invalid one."""
    found: dict[str, str] = {}
    for number, line in enumerate(source.lines, 1):
        if number == 1 and line.startswith("#!"):
            continue  # a Dockerfile may be a script that calls its builder
        match, name = _DIRECTIVE.fullmatch(line.strip()), _directive(line.strip())
        if match is None or not name:
            break
        here = Range(number, number)
        if name in found:
            raise DockerfileError(f"the directive `{name}` is given twice", source=source, where=here)
        if name == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(
                f"invalid escape character `{match[2]}`", source=source, where=here, hint=r"it can be `\` or a backtick"
            )
        found[name] = match[2]
    return found


def _directive(line: str) -> str:
    """Return the name of the directive a line is, or empty."""
    match = _DIRECTIVE.fullmatch(line)
    name = match[1].lower() if match else ""
    return name if name in DIRECTIVES else ""


class Lexer:
    """Reads a source from top to bottom; one call to `line`, then one to `heredoc` for each body it opens."""

    def __init__(self, source: Source, escape: str) -> None:
        self._source = source
        self._lines = source.lines
        self._next = 0
        self._leading = True  # nothing but directives so far
        quoted = re.escape(escape)
        # The character at the end continues the line unless another one stands before it.
        self._continued = re.compile(rf"(?<!{quoted}){quoted}[ \t]*$")

    def line(self) -> Line | None:
        """Return the next logical line that is neither blank nor comment; None at the end."""
        comments: list[str] = []
        while self._next < len(self._lines):
            stripped = self._lines[self._next].strip()
            if stripped and not stripped.startswith("#"):
                self._leading = False
                line = self._join(tuple(comments))
                if line.text:
                    return line
                continue  # nothing but escape characters
            self._leading = self._leading and _directive(stripped) != ""
            if not stripped:
                comments.clear()
            elif not self._leading:
                comments.append(stripped[1:].strip())
            self._next += 1
        return None

    def _join(self, comments: tuple[str, ...]) -> Line:
        first = self._next
        text = ""
        pieces: list[Piece] = []
        empty: list[int] = []
        continued = True
        while continued and self._next < len(self._lines):
            raw = self._lines[self._next]
            number = self._next + 1
            self._next += 1
            stripped = raw.strip()
            if number - 1 > first and stripped.startswith("#"):
                continue
            if not stripped:
                if self._next < len(self._lines) or raw:
                    empty.append(number)
                continue
            indent = len(raw) - len(raw.lstrip()) if not pieces else 0
            part = raw[indent:]
            end = self._continued.search(part)
            continued = end is not None
            pieces.append(Piece(len(text), number, indent + 1))
            text += part[: end.start()] if end else part
        return Line(
            text=text.rstrip(),
            range=Range(first + 1, pieces[-1].line),
            pieces=tuple(pieces),
            comments=comments,
            empty_continuations=tuple(empty),
        )

    def heredoc(self, opening: "Opening", line: Line) -> Heredoc:
        """Take the body that `opening` announced, up to its terminator. Raises DockerfileError without one."""
        first = self._next + 1
        body: list[str] = []
        while self._next < len(self._lines):
            raw = self._lines[self._next]
            self._next += 1
            if (raw.lstrip("\t") if opening.strip_tabs else raw) == opening.name:
                return Heredoc(
                    name=opening.name,
                    content="".join(body),
                    expand=opening.expand,
                    strip_tabs=opening.strip_tabs,
                    descriptor=opening.descriptor,
                    range=Range(first, self._next),
                )
            body.append(raw + "\n")
        close = next((b.strip() for b in body if suggestion(b.strip(), [opening.name])), None)
        raise DockerfileError(
            f"the here-document `{opening.name}` is not closed",
            source=self._source,
            where=line.range,
            hint=f"put `{opening.name}` alone on a line after its content"
            + (f"; there is a line `{close}`" if close else ""),
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """`<<NAME` on a line: what is to follow."""

    name: str
    expand: bool
    strip_tabs: bool
    descriptor: str = ""


_OPENING = re.compile(r"(\d*)<<(-?)\s*([^<]*)")


def opening(word: str, escape: str = "\\") -> Opening | None:
    """Read a word as the opening of a here-document; None when it is not one.

    Any quote in the name turns expansion of the body off, as in a shell (POSIX 2.7.4); an escaped one does not.
    """
    match = _OPENING.fullmatch(word)
    if not match:
        return None
    if len(words(match[3], escape)) != 1:
        return None
    name = _unquote(match[3], escape)
    if not name:
        raise DockerfileError("a quote in the name of a here-document is not closed", hint=f"the name is `{match[3]}`")
    quoted = re.search(rf"(?<!{re.escape(escape)})['\"]", match[3]) is not None
    return Opening(name, not quoted, bool(match[2]), match[1])


def _unquote(text: str, escape: str) -> str:
    out, quote, characters = "", "", iter(text)
    for character in characters:
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif character == escape and quote != "'":
            out += next(characters, "")
        else:
            out += character
    return out if not quote else ""


def openings(text: str, escape: str = "\\") -> list[tuple[str, Opening | None]]:
    """Split a text into words and read each as an opening; `<<` and a name after white space are one."""
    found: list[tuple[str, Opening | None]] = []
    pending = ""
    for word, _ in words(text, escape):
        if not pending and re.fullmatch(r"\d*<<-?", word):
            pending = word
            continue
        word, pending = f"{pending} {word}".lstrip(), ""
        found.append((word, opening(word, escape)))
    return [*found, (pending, None)] if pending else found


def words(text: str, escape: str = "\\") -> list[tuple[str, int]]:
    """Split at white space outside quotes, keeping quotes and escapes; returns (word, offset) pairs."""
    found: list[tuple[str, int]] = []
    word, start, quote = "", 0, ""
    characters = enumerate(text)
    for at, character in characters:
        if not quote and character.isspace():
            if word:
                found.append((word, start))
            word = ""
            continue
        if not word:
            start = at
        word += character
        if character == escape and quote != "'":
            word += next(characters, (0, ""))[1]
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    if word:
        found.append((word, start))
    return found
