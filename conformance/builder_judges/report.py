"""What came of a corpus: each case by name, passed, failed with what was seen, or skipped with the reason."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Report:
    corpus: str
    passed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def check(self, name: str, expected: object, seen: object) -> None:
        """Count a case that compares two values."""
        if expected == seen:
            self.passed.append(name)
        else:
            self.failed.append((name, f"expected {expected!r}\n    seen     {seen!r}"))

    def verdict(self, name: str, ok: bool, seen: str = "") -> None:
        """Count a case that was judged elsewhere."""
        if ok:
            self.passed.append(name)
        else:
            self.failed.append((name, seen))

    def skip(self, name: str, reason: str) -> None:
        """Count a case that cannot be judged here."""
        self.skipped.append((name, reason))

    @property
    def line(self) -> str:
        return f"{self.corpus}: {len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def outcome(function: Callable[[], object], errors: "type[Exception] | tuple[type[Exception], ...]") -> object:
    """Return what a function returns, or the word `error`."""
    try:
        return function()
    except errors:
        return "error"
