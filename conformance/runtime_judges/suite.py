"""What a suite of another project is to us: where it lies, how it is run, and why some of it fails."""

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime_judges.tap import Result

UNEXPLAINED = "NOT EXPLAINED YET"


class AbsentError(Exception):
    """The suite or a tool of it is not on this machine; the message says what to get."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """`locate` finds it, or makes it below the directory it is given; `run` takes what that returned, a runtime, and
    the programs that are wanted (all when there are none).

    `reasons` are (program, words of the check, why): the first that fits is why a check fails that we do not mean to
    pass, or cannot on this machine.
    """

    name: str
    about: str
    locate: Callable[[Path], Path]
    run: Callable[[Path, str, Sequence[str]], Iterator[Result]]
    reasons: Sequence[tuple[str, str, str]] = field(default=())

    def reason(self, program: str, check: str) -> str:
        """Return why a check fails, or that nobody has found out."""
        found = (why for name, words, why in self.reasons if name == program and words in check)
        return next(found, UNEXPLAINED)


def corpus(name: str, needs: Iterable[str] = ()) -> Path:
    """Return the source tree `$KESTREL_CORPORA/NAME`, with the files in it that a run needs."""
    given = os.environ.get("KESTREL_CORPORA", "")
    if not given:
        raise AbsentError(f"set KESTREL_CORPORA to a directory that holds its source tree as {name}/")
    for path in ("", *needs):
        if not (Path(given) / name / path).exists():
            raise AbsentError(f"there is no {name}/{path} in $KESTREL_CORPORA")
    return (Path(given) / name).absolute()


def commit(source: Path) -> str:
    """Return the commit of a source tree as git checked it out, empty for any other."""
    if not (source / ".git").exists():
        return ""
    line = ["git", "-C", str(source), "rev-parse", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
