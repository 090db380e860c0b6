"""What people see: tables, durations, and progress that is live on a terminal and plain lines in a pipe.

Data goes to stdout, talk to stderr, so that `kestrel build -q . | xargs kestrel run` works.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def say(text: str) -> None:
    """Tell the person something; never data."""
    print(text, file=sys.stderr, flush=True)


def table(headings: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> str:
    """Return columns as docker and kubectl print them: upper-case headings, three spaces between."""
    widths = [max(len(str(row[i])) for row in (headings, *rows)) for i in range(len(headings))]
    return "\n".join(
        "   ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    )


def print_json(value: "Any") -> None:
    """Print data for machines."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def colours(stream: "Any") -> bool:
    """Say whether a stream wants colour: a terminal, and https://no-color.org not set."""
    return bool(stream.isatty()) and "NO_COLOR" not in os.environ


class Progress:
    """Shows events `{"id", "status", "current", "total"}` of pulls and pushes.

    On a terminal each id has a line that changes in place; otherwise a line is printed whenever a status changes.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._live = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._rows: dict[str, str] = {}
        self._status: dict[str, str] = {}

    def __call__(self, event: "dict[str, Any]") -> None:
        """Show one event."""
        if self._quiet:
            return
        key, status = event.get("id", ""), event.get("status", "")
        if not self._live:
            if self._status.get(key) != status:
                self._status[key] = status
                say(f"{key}: {status}" if key else status)
            return
        text = f"{key}: {status}{_bar(event.get('current', 0), event.get('total', 0))}" if key else status
        if key and key in self._rows:
            up = list(reversed(self._rows)).index(key) + 1
            self._rows[key] = text
            sys.stderr.write(f"\033[{up}A\r\033[K{text}\033[{up}B\r")
        else:
            self._rows[key or text] = text
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _bar(current: int, total: int) -> str:
    if not total or current >= total:
        return ""
    from kestrel.base.units import print_size

    filled = int(24 * current / total)
    return f" [{'=' * filled}>{' ' * (24 - filled)}] {print_size(current)}/{print_size(total)}"


def ago(seconds: float) -> str:
    """Print how long ago something was, in one unit: `3 minutes ago`."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"
