"""The complete log of each build, kept as a file: nothing is cut, whatever a terminal showed.

One file a build below the builder's directory, lines as `STEP | text`, readable while the build runs. The newest
ones are kept.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from kestrel.base.errors import InvalidArgument, KestrelError, NotFound
from kestrel.base.files import private_directory
from kestrel.base.ids import new_id, short
from kestrel.build.events import Done, Emit, Event, Exported, Failed, Log, Planned, Resolved, Reused, Started, Warned

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
        now = time.time_ns()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9)) + f".{now // 10**6 % 1000:03d}Z"
        return Recording(self._directory / f"{stamp}-{short(new_id())}.log", progress)

    def logs(self) -> "tuple[Logged, ...]":
        """Return the logs that are kept, the newest first."""
        return tuple(_logged(path) for path in sorted(self._directory.glob("*.log"), reverse=True))

    def find(self, name: str) -> "Logged":
        """Return one log by its name, the beginning or the end of it. Raises NotFound or InvalidArgument."""
        logs = self.logs()
        found = [log for log in logs if log.name.startswith(name) or log.name.endswith(name)]
        if not found:
            raise NotFound(f"there is no log of a build {name!r}", hint="`kestrel builder logs` lists them")
        if len(found) > 1 and name not in [log.name for log in found]:
            raise InvalidArgument(f"{len(found)} builds have {name!r} in their names", hint="give more of the name")
        return next((log for log in found if log.name == name), found[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A log: its name (when the build began, and something random), its file and bytes, and its last line."""

    name: str
    path: Path
    size: int
    how: str


def _logged(path: Path) -> Logged:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 4096))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    return Logged(name=path.stem, path=path, size=size, how=last.decode("utf-8", "replace"))


class Recording:
    """One log; use as a context manager."""

    def __init__(self, path: Path, progress: Emit) -> None:
        self.path = path
        self._progress = progress
        self._file = open(path, "x", encoding="utf-8", errors="surrogateescape", buffering=1)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: object, _: object) -> None:
        if isinstance(error, KestrelError):
            self._file.write(f"failed: {error.message.splitlines()[0]}\n")
        elif isinstance(error, Exception):
            self._file.write(f"failed: {type(error).__name__}: {error}\n")
        elif error is not None:
            self._file.write("cancelled\n")
        self._file.close()

    def tell(self, event: Event) -> None:
        """Write an event down and hand it on."""
        for kind, line in _LINES:
            if isinstance(event, kind) and not self._file.closed:
                self._file.write(line(event) + "\n")
        self._progress(event)


_LINES: Final[tuple[tuple[type[Event], Callable[..., str]], ...]] = (
    (Resolved, lambda e: f"base {e.name} {e.digest} {e.how}"),
    (Planned, lambda e: "\n".join([f"build {e.dockerfile} {e.target}", *(f"{s.id} : {s.title}" for s in e.steps)])),
    (Started, lambda e: f"{e.step} > {e.reason}"),
    (Log, lambda e: "\n".join(f"{e.step} | {line}" for line in e.line.split("\r"))),
    (Reused, lambda e: f"{e.step} = {e.reason}"),
    (Done, lambda e: f"{e.step} + {e.seconds:.3f} s, {e.size} bytes"),
    (Failed, lambda e: f"{e.step} ! {e.message}"),
    (Warned, lambda e: f"warning: {e.text}"),
    (Exported, lambda e: f"image {e.image} {' '.join(e.names)}".rstrip()),
)
