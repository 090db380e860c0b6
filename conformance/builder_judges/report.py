"""What came of a corpus: each case by name, passed, failed with what was seen, or skipped with the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Skip(StrEnum):
    """What it means that a case was skipped."""

    LACKING = "Skipped for what Kestrel does not have; these count as not passed"
    LATER = "Skipped for what comes later"
    ELSEWHERE = "Skipped for what is no matter of the builder, or not to be had where it was judged"


@dataclass(frozen=True)
class SkippedCase:
    name: str
    reason: str
    kind: Skip
    seen: str = ""


@dataclass
class Report:
    """`reasons` are those of cases that fail on purpose, by name."""

    corpus: str
    reasons: Mapping[str, str] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[SkippedCase] = field(default_factory=list)

    def check(self, name: str, expected: object, seen: object) -> None:
        """Count a case that compares two values."""
        self.verdict(name, expected == seen, f"expected {expected!r}\n    seen     {seen!r}")

    def verdict(self, name: str, ok: bool, seen: str = "") -> None:
        """Count a case that was judged elsewhere."""
        if ok:
            self.passed.append(name)
        else:
            self.failed.append((name, seen))

    def skip(self, name: str, reason: str, kind: Skip = Skip.ELSEWHERE, seen: str = "") -> None:
        """Count a case that cannot be judged here."""
        self.skipped.append(SkippedCase(name, reason, kind, seen))

    def why(self, name: str) -> str:
        """Say why a case fails."""
        return self.reasons.get(name, UNEXPLAINED)

    @property
    def unexplained(self) -> list[str]:
        return [name for name, _ in self.failed if name not in self.reasons]

    @property
    def line(self) -> str:
        return f"{self.corpus}: {len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


UNEXPLAINED = "nobody has said why yet"


def outcome(function: Callable[[], object], errors: "type[Exception] | tuple[type[Exception], ...]") -> object:
    """Return what a function returns, or the word `error`."""
    try:
        return function()
    except errors:
        return "error"
