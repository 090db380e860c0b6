"""What a build tells while it works: typed events, in order, fit to be sent over any wire as plain JSON values.

`msgspec.to_builtins(event)` gives a dictionary whose `event` says which it is; `build.progress` renders those.
"""

from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of all."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the plan."""

    id: str
    title: str
    stage: str


class Resolved(Event, frozen=True, kw_only=True, tag="resolved"):
    """A base image was found; `how` is `local` or `pulled`."""

    name: str
    digest: str
    how: str
    seconds: float


class Pulling(Event, frozen=True, kw_only=True, tag="pulling"):
    """A base image is being fetched: one layer's progress in bytes."""

    name: str
    id: str
    status: str
    current: int
    total: int


class Planned(Event, frozen=True, kw_only=True, tag="planned"):
    """The steps that the target needs, in an order in which they may run."""

    dockerfile: str
    target: str
    steps: tuple[Listed, ...]


class Warned(Event, frozen=True, kw_only=True, tag="warned"):
    """Something is odd but the build goes on."""

    text: str


class Started(Event, frozen=True, kw_only=True, tag="started"):
    """A step runs, and why it could not be reused."""

    step: str
    reason: str


class Log(Event, frozen=True, kw_only=True, tag="log"):
    """One line of a step's output; `stream` is stdout or stderr.

    A carriage return in it begins the line anew where it is shown on a terminal.
    """

    step: str
    stream: str
    line: str


class Reused(Event, frozen=True, kw_only=True, tag="reused"):
    """A step's layer was there already."""

    step: str
    reason: str


class Done(Event, frozen=True, kw_only=True, tag="done"):
    """A step ran; `size` is the bytes of its layer, 0 when it changed nothing."""

    step: str
    seconds: float
    size: int


class Failed(Event, frozen=True, kw_only=True, tag="failed"):
    """A step failed; the error itself is what `build` raises."""

    step: str
    message: str


class Entered(Event, frozen=True, kw_only=True, tag="entered"):
    """Somebody is let into the place where a RUN failed, with the shell that is named."""

    step: str
    message: str
    shell: str


class Exported(Event, frozen=True, kw_only=True, tag="exported"):
    """The image is in the store."""

    image: str
    names: tuple[str, ...]
    seconds: float


Emit = Callable[[Event], None]
"""Takes events in order; may be called from worker threads and must not block."""


class Lines:
    """Cuts a step's output into `Log` events; a last line without its end is told by `flush`."""

    _LONGEST = 16384

    def __init__(self, step: str, emit: Emit) -> None:
        self._step = step
        self._emit = emit
        self._pending = {"stdout": b"", "stderr": b""}
        self.tail: list[str] = []

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes as they come."""
        *whole, rest = (self._pending.get(stream, b"") + data).split(b"\n")
        for line in whole:
            self._tell(stream, line)
        while len(rest) > self._LONGEST:
            self._tell(stream, rest[: self._LONGEST])
            rest = rest[self._LONGEST :]
        self._pending[stream] = rest

    def flush(self) -> None:
        """Tell what is left."""
        for stream, rest in self._pending.items():
            if rest:
                self._tell(stream, rest)
        self._pending = {"stdout": b"", "stderr": b""}

    def _tell(self, stream: str, data: bytes) -> None:
        line = data.decode("utf-8", "replace").rstrip("\r")
        self.tail.append(line.rsplit("\r", 1)[-1])
        del self.tail[:-20]
        self._emit(Log(step=self._step, stream=stream, line=line))
