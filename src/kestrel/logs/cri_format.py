"""One line of a container's log file, as CRI defines it; pure.

A line is `<RFC3339Nano> <stdout|stderr> <P|F> <text>\n`. `P` marks a part of a line that was too long or had not
ended when it was written; the text of the following entries of the same stream belongs to it up to and including the
next `F` (CRI "Container Runtime Interface: logging", kubernetes design proposal `kubelet-cri-logging.md`).
"""

import calendar
import re
from dataclasses import dataclass

from kestrel.base.clock import rfc3339_nano

_MOMENT = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One parsed line. `moment` is nanoseconds since the epoch; `partial` says the text's line goes on."""

    moment: int
    stream: str
    text: bytes
    partial: bool = False


def parse(line: bytes) -> Entry | None:
    """Read one line without its newline; None when it is not a CRI log line (torn by a crash, or foreign)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    moment = parse_moment(parts[0])
    # Tags are a colon-separated list of which only the first is defined.
    tag = parts[2].split(b":", 1)[0]
    if moment is None or tag not in (b"P", b"F"):
        return None
    return Entry(moment, parts[1].decode(), parts[3] if len(parts) > 3 else b"", tag == b"P")


def parse_moment(text: bytes) -> int | None:
    """Read an RFC 3339 stamp with up to nine fractional digits as nanoseconds since the epoch."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        seconds = calendar.timegm((year, month, day, hour, minute, second))
    except ValueError:
        return None
    fraction = int((match[7] or b"0").ljust(9, b"0"))
    return (seconds - _offset(match[8])) * 1_000_000_000 + fraction


def _offset(zone: bytes) -> int:
    if zone == b"Z":
        return 0
    seconds = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    return -seconds if zone[:1] == b"-" else seconds


def line(entry: Entry) -> bytes:
    """Print an entry as it stands in a log file, newline included."""
    tag = "P" if entry.partial else "F"
    return f"{rfc3339_nano(entry.moment)} {entry.stream} {tag} ".encode() + entry.text + b"\n"
