"""Time as a thing that is passed in, so that tests can move it by hand."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What code that waits or stamps needs to know of time."""

    def now(self) -> datetime:
        """Return the wall clock, always in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards, for measuring and for deadlines."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return `time.monotonic()` in seconds."""
        return time.monotonic()


def rfc3339(moment: datetime) -> str:
    """Print whole seconds as Kubernetes does: `2026-01-02T03:04:05Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime) -> str:
    """Print microseconds as Kubernetes MicroTime does: `2026-01-02T03:04:05.000006Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339_nano(nanoseconds: int) -> str:
    """Print nanoseconds since the epoch as Go's RFC3339Nano does for container logs, nine digits always."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{rest:09d}Z"
