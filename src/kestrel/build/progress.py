"""A build's events as text: plain lines for pipes and logs, a live picture of what runs for a terminal.

Takes the events as plain JSON values (`events` says which there are), so that a command line at the other end of a
socket can print them without loading the builder. Nothing here writes anywhere: the caller gives `write`.

    printer = Plain(sys.stderr.write)             or  Live(sys.stderr.write, columns=120, rows=40), Raw(...)
    for event in stream: printer.feed(event)
    printer.close()
"""

import time
import unicodedata
from collections import deque
from collections.abc import Callable
from typing import Any

from kestrel.base.units import print_duration, print_size

Write = Callable[[str], object]
_TAIL = 4
_INTERVAL = 0.05
_UP_AND_CLEAR = "\x1b[{}A\x1b[J"


class _Steps:
    """What both printers know: the plan's steps by id, and how often which thing happened."""

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}
        self.titles: dict[str, str] = {}
        self.reused = 0
        self.ran = 0

    def plan(self, event: dict[str, Any]) -> None:
        self.reused = self.ran = 0  # of this build: a check of repeatability makes two
        totals: dict[str, int] = {}
        for step in event["steps"]:
            totals[step["stage"]] = totals.get(step["stage"], 0) + 1
        seen: dict[str, int] = {}
        for step in event["steps"]:
            stage = step["stage"]
            seen[stage] = seen.get(stage, 0) + 1
            self.labels[step["id"]] = f"[{stage} {seen[stage]}/{totals[stage]}]"
            self.titles[step["id"]] = step["title"]

    def name(self, step: str) -> str:
        return f"{self.labels.get(step, step)} {self.titles.get(step, '')}".rstrip()


def _outcome(event: dict[str, Any]) -> str:
    size = f", {print_size(event['size'])}" if event["size"] else ", no change"
    return f"done in {print_duration(event['seconds'])}{size}"


def _base(event: dict[str, Any]) -> str:
    how = "already here" if event["how"] == "local" else f"pulled in {print_duration(event['seconds'])}"
    return f"[base] {event['name']} {event['digest'][:19]} ({how})"


def _exported(event: dict[str, Any], steps: _Steps) -> str:
    names = ", ".join(event["names"]) or "no name"
    count = f"{steps.ran} run, {steps.reused} reused"
    return f"image {event['image'][:19]} ({names}): steps {count}"


def _said(event: dict[str, Any]) -> str:
    """A carriage return repaints the line: what stands after the last one is what a terminal would show."""
    return str(event["line"]).rsplit("\r", 1)[-1]


class Raw:
    """The events themselves, one JSON value a line, for programs. `encode` makes bytes of a value."""

    def __init__(self, write: Write, encode: Callable[[object], bytes]) -> None:
        self._write = write
        self._encode = encode

    def feed(self, event: dict[str, Any]) -> None:
        """Print one event."""
        self._write(self._encode(event).decode() + "\n")

    def tick(self) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing is pending."""


class Plain:
    """One line for each thing that happens, never repainted."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._steps = _Steps()

    def feed(self, event: dict[str, Any]) -> None:
        """Print one event."""
        for line in self._lines(event):
            self._write(line + "\n")

    def tick(self) -> None:
        """Times do not move in plain text."""

    def close(self) -> None:
        """Nothing is pending in plain text."""

    def _lines(self, event: dict[str, Any]) -> list[str]:
        kind, steps = event.get("event"), self._steps
        step = str(event.get("step", ""))
        if kind == "planned":
            steps.plan(event)
        elif kind == "resolved":
            return [_base(event)]
        elif kind == "warned":
            return [f"warning: {event['text']}"]
        elif kind == "reused":
            steps.reused += 1
            return [f"{steps.name(step)} ... reused"]
        elif kind == "started":
            steps.ran += 1
            return [f"{steps.name(step)} ... running: {event['reason']}"]
        elif kind == "log":
            return [f"{steps.labels.get(step, step)}   {_said(event)}"]
        elif kind == "done":
            return [f"{steps.labels.get(step, step)} {_outcome(event)}"]
        elif kind == "failed":
            return [f"{steps.name(step)} ... FAILED"]
        elif kind == "exported":
            return [_exported(event, steps)]
        return []


class Live:
    """Finished steps scroll by; what runs is repainted below them, each with its last lines of output.

    No more is painted than `rows` hold: what has scrolled off a terminal cannot be repainted. Painting happens at most
    twenty times a second; call `tick` when nothing comes, so that the running times move. `clock` returns seconds.
    """

    def __init__(
        self, write: Write, *, columns: int = 80, rows: int = 24, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._columns = max(columns, 20)
        self._rows = max(rows, 4)
        self._clock = clock
        self._steps = _Steps()
        self._running: dict[str, tuple[float, str, deque[str]]] = {}
        self._pulling: dict[str, str] = {}
        self._painted = 0
        self._last = float("-inf")

    def feed(self, event: dict[str, Any]) -> None:
        """Take one event and repaint if it is time."""
        finished = self._take(event)
        if finished or self._clock() - self._last >= _INTERVAL:
            self._paint(finished)

    def tick(self) -> None:
        """Repaint the running times."""
        if self._running or self._pulling:
            self._paint([])

    def close(self) -> None:
        """Leave the terminal with finished lines only."""
        self._running.clear()
        self._pulling.clear()
        self._paint([])

    def _take(self, event: dict[str, Any]) -> list[str]:
        kind, steps = event.get("event"), self._steps
        step = str(event.get("step", ""))
        if kind == "planned":
            steps.plan(event)
        elif kind == "pulling":
            done = f" {print_size(event['current'])}/{print_size(event['total'])}" if event["total"] else ""
            self._pulling[event["id"]] = f"[base] {event['name']} {event['id'][:19]} {event['status']}{done}"
        elif kind == "resolved":
            self._pulling.clear()
            return [_base(event)]
        elif kind == "warned":
            return [f"warning: {event['text']}"]
        elif kind == "reused":
            steps.reused += 1
            return [f"= {steps.name(step)}  (reused)"]
        elif kind == "started":
            steps.ran += 1
            self._running[step] = (self._clock(), event["reason"], deque(maxlen=_TAIL))
        elif kind == "log" and step in self._running:
            self._running[step][2].append(_said(event))
        elif kind == "done":
            _, reason, _ = self._running.pop(step, (0.0, "", deque()))
            return [f"+ {steps.name(step)}  ({_outcome(event)}; {reason})"]
        elif kind == "failed":
            self._running.pop(step, None)
            return [f"! {steps.name(step)}  (failed)"]
        elif kind == "exported":
            return [_exported(event, steps)]
        return []

    def _paint(self, finished: list[str]) -> None:
        text = _UP_AND_CLEAR.format(self._painted) if self._painted else ""
        text += "".join(f"{self._fit(line)}\n" for line in finished)
        block = self._block()
        text += "".join(f"{self._fit(line)}\n" for line in block)
        self._painted = len(block)
        self._last = self._clock()
        if text:
            self._write(text)

    def _block(self) -> list[str]:
        lines = list(self._pulling.values())[: self._rows - 3]
        room = self._rows - 1 - len(lines)
        running = list(self._running.items())
        more = len(running) - room + 1 if len(running) > room else 0
        running = running[: len(running) - more]
        each = room // len(running) - 1 if running else 0
        for step, (began, reason, tail) in running:
            lines.append(f"> {self._steps.name(step)}  ({print_duration(self._clock() - began)}; {reason})")
            lines.extend(f"    {line}" for line in list(tail)[max(0, len(tail) - each) :])
        return [*lines, f"> and {more} more"] if more else lines

    def _fit(self, line: str) -> str:
        """Cut a line to the terminal's width, or the count of painted lines would be wrong; no control characters."""
        shown = "".join(c if c.isprintable() else " " for c in line)
        if shown.isascii():
            return shown if len(shown) < self._columns else shown[: self._columns - 2] + "…"
        at = width = 0
        for at, character in enumerate(shown, 1):
            width += _width(character)
            if width >= self._columns - 1:
                return shown[: at - 1] + "…"
        return shown


def _width(character: str) -> int:
    """Return how many columns a terminal gives a character (Unicode Standard Annex 11)."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
