"""A clock that a test moves by hand."""

from datetime import UTC, datetime, timedelta


class HandClock:
    """Stands still until `move`."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
        self._seconds = 0.0

    def now(self) -> datetime:
        """Return the time it was set to, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds it was moved by."""
        return self._seconds

    def move(self, seconds: float) -> None:
        """Go forward."""
        self._now += timedelta(seconds=seconds)
        self._seconds += seconds
