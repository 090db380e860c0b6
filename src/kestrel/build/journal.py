"""The complete log of each build, kept as a file: nothing is cut, whatever a terminal showed.

One file a build below the builder's directory, lines as `STEP | text`, readable while the build runs. The newest
ones are kept.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from kestrel.base.files import private_directory
from kestrel.base.ids import new_id, short
from kestrel.build.events import Done, Emit, Event, Failed, Log, Reused, Started, Warned

KEPT: Final = 50


class Journal:
    """Writes the logs of builds below a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory)

    def open(self, progress: Emit) -> "Recording":
        """Begin a log; what is told to it goes to `progress` too."""
        names = sorted(self._directory.glob("*.log"))
        for old in names[: max(0, len(names) - KEPT + 1)]:
            old.unlink(missing_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return Recording(self._directory / f"{stamp}-{short(new_id())}.log", progress)


class Recording:
    """One log; use as a context manager."""

    def __init__(self, path: Path, progress: Emit) -> None:
        self.path = path
        self._progress = progress
        self._file = open(path, "x", encoding="utf-8", errors="surrogateescape", buffering=1)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tell(self, event: Event) -> None:
        """Write an event down and hand it on."""
        for kind, line in _LINES:
            if isinstance(event, kind) and not self._file.closed:
                self._file.write(line(event) + "\n")
        self._progress(event)


_LINES: Final[tuple[tuple[type[Event], Callable[..., str]], ...]] = (
    (Started, lambda e: f"{e.step} > {e.reason}"),
    (Log, lambda e: f"{e.step} | {e.line}"),
    (Reused, lambda e: f"{e.step} = {e.reason}"),
    (Done, lambda e: f"{e.step} + {e.seconds:.3f} s, {e.size} bytes"),
    (Failed, lambda e: f"{e.step} ! {e.message}"),
    (Warned, lambda e: f"warning: {e.text}"),
)
