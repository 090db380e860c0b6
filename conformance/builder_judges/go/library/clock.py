"""time."""

import datetime as dt
import re
from typing import Any

from builder_judges.go.values import Native, Package, Type, Unsupported

_MONTHS = "January February March April May June July August September October November December".split()
HTTP_FORMAT = "Mon, 02 Jan 2006 15:04:05 GMT"
_LAYOUTS = {"RFC3339": "2006-01-02T15:04:05Z07:00", "RFC3339Nano": "2006-01-02T15:04:05.999999999Z07:00"}


class Time(Native):
    """time.Time."""

    def __init__(self, moment: "dt.datetime | None" = None) -> None:
        self.moment = moment or dt.datetime(1, 1, 1, tzinfo=dt.UTC)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Time) and self.moment == other.moment

    def __hash__(self) -> int:
        return hash(self.moment)

    def Unix(self) -> int:
        return int(self.moment.timestamp())

    def UnixNano(self) -> int:
        return int(self.moment.timestamp() * 1_000_000) * 1000

    def UTC(self) -> "Time":
        return self

    Local = UTC

    def In(self, _: Any) -> "Time":
        return self

    def Add(self, nanoseconds: int) -> "Time":
        return Time(self.moment + dt.timedelta(microseconds=nanoseconds / 1000))

    def Truncate(self, nanoseconds: int) -> "Time":
        return Time(
            dt.datetime.fromtimestamp(self.Unix() // (nanoseconds // 10**9 or 1) * (nanoseconds // 10**9 or 1), dt.UTC)
        )

    def Sub(self, other: "Time") -> int:
        return int((self.moment - other.moment).total_seconds() * 1e9)

    def Equal(self, other: "Time") -> bool:
        return self == other

    def After(self, other: "Time") -> bool:
        return self.moment > other.moment

    def Before(self, other: "Time") -> bool:
        return self.moment < other.moment

    def IsZero(self) -> bool:
        return self.moment.year == 1

    def Year(self) -> int:
        return self.moment.year

    def Format(self, layout: str) -> str:
        if layout == _LAYOUTS["RFC3339"]:
            return self.moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        if layout == HTTP_FORMAT:
            return self.moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
        raise Unsupported(f"the layout {layout}")


def moment(text: Any) -> Any:
    """Read a time out of JSON."""
    if isinstance(text, Time) or not isinstance(text, str):
        return text
    return Time(dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)))


def _date(year: int, month: int, day: int, hour: int, minute: int, second: int, nanos: int, _: Any) -> Time:
    return Time(dt.datetime(year, month, day, hour, minute, second, nanos // 1000, dt.UTC))


time = Package(
    "time",
    {
        "Time": Type("time.Time", make=Time),
        "Unix": lambda seconds, nanos: Time(dt.datetime.fromtimestamp(seconds + nanos / 1e9, dt.UTC)),
        "Date": _date,
        "Now": lambda: Time(dt.datetime.now(dt.UTC)),
        "Parse": lambda layout, text: (moment(text), None),
        "Sleep": lambda _: None,
        "UTC": None,
        **{name: number for number, name in enumerate(_MONTHS, 1)},
        **_LAYOUTS,
        "Nanosecond": 1,
        "Microsecond": 10**3,
        "Millisecond": 10**6,
        "Second": 10**9,
        "Minute": 60 * 10**9,
        "Hour": 3600 * 10**9,
    },
)
