""".dockerignore: which paths of a context the build may not see.

The rules are those of moby's patternmatcher (https://docs.docker.com/build/concepts/context/#dockerignore-files):
one pattern a line, `#` comments, Go's `filepath.Match` wildcards plus `**`, a leading slash means nothing, `!`
takes paths back, the last matching line decides, and what matches a directory also matches everything below it.
"""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.glob import BadPattern, Matcher, path_pattern
from kestrel.dockerfile.nodes import Range, Source


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line: the cleaned pattern, whether it takes paths back, and its line number (0 when given by hand)."""

    text: str
    exception: bool = False
    line: int = 0

    def __str__(self) -> str:
        return f"!{self.text}" if self.exception else self.text


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a walk has come: the matcher's state after the path, the patterns that hold for it, the verdict."""

    state: int
    holds: int
    ignored: bool


class IgnoreList:
    """The patterns of one file, ready to be asked.

    `ignores(path)` answers for a single slash-separated path relative to the context. A walk begins with `root` and
    calls `enter(cursor, name)` for each name it meets, which costs only the characters of that name.
    """

    def __init__(self, patterns: Iterable[Pattern] = (), name: str = ".dockerignore") -> None:
        self.patterns = tuple(patterns)
        self.name = name
        self._matcher = Matcher(path_pattern(p.text, double_star=True) for p in self.patterns)
        self._verdicts: dict[int, bool] = {0: False}
        self.has_exceptions = any(p.exception for p in self.patterns)
        self.root = Cursor(self._matcher.start, 0, ignored=False)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def ignores(self, path: str) -> bool:
        """Tell whether a path is hidden, by itself or with a directory above it."""
        return self._descend(path).ignored

    def reason(self, path: str) -> Pattern | None:
        """Return the line that hides a path, or None when it is not hidden."""
        holds = self._descend(path).holds
        decisive, ignored = None, False
        for number, pattern in enumerate(self.patterns):
            if holds >> number & 1 and pattern.exception == ignored:
                ignored = not pattern.exception
                decisive = pattern if ignored else None
        return decisive

    def enter(self, cursor: Cursor, name: str) -> Cursor:
        """Return the cursor for an entry of the directory that `cursor` stands for."""
        state = self._matcher.advance(cursor.state, name)
        holds = cursor.holds | self._matcher.accepted(state)
        verdict = self._verdicts.get(holds)
        if verdict is None:
            verdict = self._verdicts[holds] = self._decide(holds)
        return Cursor(self._matcher.advance(state, "/"), holds, verdict)

    def _descend(self, path: str) -> Cursor:
        cursor = self.root
        if path == "/":
            return self.enter(cursor, path)  # the root itself, which only `**` matches
        for name in posixpath.normpath(path).strip("/").split("/"):
            if name not in ("", "."):
                cursor = self.enter(cursor, name)
        return cursor

    def _decide(self, holds: int) -> bool:
        ignored = False
        for number, pattern in enumerate(self.patterns):
            if holds >> number & 1:
                ignored = not pattern.exception
        return ignored


def parse(text: str, name: str = ".dockerignore") -> IgnoreList:
    """Read the text of a .dockerignore. Raises DockerfileError for a malformed pattern."""
    source = Source(name, text)
    patterns = []
    for number, line in enumerate(source.lines, 1):
        pattern = _read_line(line.removeprefix("\ufeff") if number == 1 else line, number)
        if pattern is not None:
            _check(pattern, source)
            patterns.append(pattern)
    return IgnoreList(patterns, name)


def compile_patterns(patterns: Iterable[str]) -> IgnoreList:
    """Make a list of patterns given by hand, such as those of `COPY --exclude`. Raises DockerfileError."""
    read = [p for p in (_read_line(text, 0) for text in patterns) if p is not None]
    for pattern in read:
        _check(pattern, None)
    return IgnoreList(read, "--exclude")


def _read_line(line: str, number: int) -> Pattern | None:
    if number and line.startswith("#"):
        return None
    line = line.strip()
    exception = line.startswith("!")
    text = line.removeprefix("!").strip() if exception else line
    if not text:
        return Pattern("", exception=True, line=number) if exception else None
    cleaned = posixpath.normpath(text)
    if cleaned.startswith("//"):  # POSIX keeps two leading slashes apart, Go's Clean does not
        cleaned = cleaned[1:]
    if len(cleaned) > 1:
        cleaned = cleaned.removeprefix("/")
    return Pattern(cleaned, exception, number)


def _check(pattern: Pattern, source: Source | None) -> None:
    place = Range(pattern.line, pattern.line) if source is not None else None
    if not pattern.text:
        raise DockerfileError("`!` needs a pattern after it", source=source, where=place)
    try:
        path_pattern(pattern.text, double_star=True)
    except BadPattern:
        raise DockerfileError(
            f"malformed pattern `{pattern}`",
            source=source,
            where=place,
            hint=r"close every `[`, and write `\[` for the character itself",
        ) from None
