"""Wildcard patterns matched in linear time, many at once.

Three dialects share the machine: variables (`${v#*.}`: `*` and `?` take any character), Go's `filepath.Match`
(COPY sources: neither crosses `/`) and .dockerignore (`**` as well). Patterns come from strangers, and a
backtracking regular expression can be made to run for hours by a short one; here the pattern is a set of positions
(an NFA) kept as the bits of one integer, and each step from a set by a character is remembered (a lazily built DFA).

A `Matcher` holds several patterns side by side and reports every one that matches as a bit. Walkers keep the state
reached after `directory/` and go on from it for each name, so a tree costs each character of it once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

_MEMO_LIMIT = 50_000


@dataclass(frozen=True, slots=True)
class Token:
    """One element of a pattern: does it take this character, and may it take more or none?

    `skip` says how many positions may be passed over without taking anything, `stay` that it takes any number.
    `leave_on_slash` marks the inside of `**/`, which ends only with a slash.
    """

    takes: Callable[[str], bool]
    skip: int = 0
    stay: bool = False
    leave_on_slash: bool = False


class BadPattern(ValueError):  # noqa: N818 - Go's name for it, and the callers make the error people see
    """The pattern is malformed: an open bracket, an empty range, a trailing escape."""


def _any(_: str) -> bool:
    return True


def _segment(character: str) -> bool:
    return character != "/"


def literal(character: str) -> Token:
    """Return the token that takes exactly this character."""
    return Token(character.__eq__)


ANY_ONE = Token(_any)
ANY_RUN = Token(_any, skip=1, stay=True)
SEGMENT_ONE = Token(_segment)
SEGMENT_RUN = Token(_segment, skip=1, stay=True)
DIRECTORIES = (Token(_any, skip=2), Token(_any, stay=True, leave_on_slash=True))
"""`**/`: nothing, or anything that ends in a slash. Two positions: before it, and inside it."""


def variable_pattern(pattern: str, escape: str = "\\") -> tuple[Token, ...]:
    """Read the pattern of a substitution: `*`, `?`, and the escape character before either or itself."""
    tokens: list[Token] = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            tokens.append(ANY_RUN)
        elif character == "?":
            tokens.append(ANY_ONE)
        elif character == escape:
            tokens.append(literal(next(characters, escape)))
        else:
            tokens.append(literal(character))
    return tuple(tokens)


def path_pattern(pattern: str, *, double_star: bool = False) -> tuple[Token, ...]:
    """Read a pattern of Go's `filepath.Match`; with `double_star` also the `**` of .dockerignore.

    Raises BadPattern.
    """
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if double_star and pattern.startswith("**", at):
            # `**/` and `**` mean the same except at the very end, where everything below matches
            # (https://docs.docker.com/build/concepts/context/#dockerignore-files).
            at += 3 if pattern.startswith("/", at + 2) else 2
            tokens.extend(DIRECTORIES if at < len(pattern) else (ANY_RUN,))
            continue
        if character == "[":
            token, at = _character_class(pattern, at)
            tokens.append(token)
            continue
        if character == "\\":
            at += 1
            if at == len(pattern):
                raise BadPattern(pattern)
            tokens.append(literal(pattern[at]))
        else:
            tokens.append({"*": SEGMENT_RUN, "?": SEGMENT_ONE}.get(character) or literal(character))
        at += 1
    return tuple(tokens)


def _character_class(pattern: str, at: int) -> tuple[Token, int]:
    """Read `[a-z]` or `[^a-z]` at a position; returns the token and the position after it."""
    at += 1
    negated = pattern.startswith("^", at)
    at += negated
    spans: list[tuple[str, str]] = []
    while not (pattern.startswith("]", at) and spans):
        low, at = _class_member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_member(pattern, at + 1)
        spans.append((low, high))
    frozen = tuple(spans)
    return Token(lambda c: any(low <= c <= high for low, high in frozen) != negated), at + 1


def _class_member(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("\\", at):
        at += 1
    elif pattern[at : at + 1] in ("-", "]"):
        raise BadPattern(pattern)
    if at >= len(pattern):
        raise BadPattern(pattern)
    return pattern[at], at + 1


class Matcher:
    """Several patterns at once. States are opaque; begin with `start` and go on with `advance`."""

    def __init__(self, patterns: Iterable[tuple[Token, ...]]) -> None:
        self._tokens: list[Token | None] = []
        self._ends: list[int] = []
        starts = 0
        for pattern in patterns:
            starts |= 1 << len(self._tokens)
            self._tokens.extend(pattern)
            self._ends.append(len(self._tokens))
            self._tokens.append(None)
        self.start = self._closure(starts)
        self._memo: dict[tuple[int, str], int] = {}
        self._accepted: dict[int, int] = {}

    def advance(self, state: int, text: str) -> int:
        """Return the state after more text; 0 when no pattern can match any more."""
        memo = self._memo
        for character in text:
            if not state:
                return 0
            after = memo.get((state, character))
            if after is None:
                after = self._step(state, character)
            state = after
        return state

    def accepted(self, state: int) -> int:
        """Return a bit for each pattern that matches the text so far, the first pattern's lowest."""
        found = self._accepted.get(state)
        if found is None:
            found = sum(1 << number for number, end in enumerate(self._ends) if state >> end & 1)
            self._accepted[state] = found
        return found

    def matches(self, text: str) -> bool:
        """Tell whether any pattern matches the whole text."""
        return self.accepted(self.advance(self.start, text)) != 0

    def prefixes(self, text: str, begin: int = 0) -> Iterable[int]:
        """Yield every end at which `text[begin:end]` matches, shortest first."""
        state = self.start
        for end in range(begin, len(text) + 1):
            if self.accepted(state):
                yield end
            if end == len(text) or not state:
                return
            state = self.advance(state, text[end])

    def _step(self, state: int, character: str) -> int:
        reached = 0
        for position in _bits(state):
            token = self._tokens[position]
            if token is None or not token.takes(character):
                continue
            if token.stay:
                reached |= 1 << position
                if token.leave_on_slash and character == "/":
                    reached |= 1 << position + 1
            elif token.skip == 2:  # entering `**/`: inside it now, or already past it when this was its slash
                reached |= 1 << position + 1
                if character == "/":
                    reached |= 1 << position + 2
            else:
                reached |= 1 << position + 1
        reached = self._closure(reached)
        if len(self._memo) > _MEMO_LIMIT:
            self._memo.clear()
            self._accepted.clear()
        self._memo[state, character] = reached
        return reached

    def _closure(self, state: int) -> int:
        """Add what can be reached by passing over tokens that may take nothing."""
        pending = state
        while pending:
            added = 0
            for position in _bits(pending):
                token = self._tokens[position]
                if token is not None and token.skip:
                    added |= 1 << position + token.skip
            pending = added & ~state
            state |= added
        return state


def _bits(number: int) -> Iterable[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
