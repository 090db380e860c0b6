"""Sizes and durations as people write them."""

import re

from kestrel.base.errors import InvalidArgument

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b?)", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Read `512`, `64k`, `1.5GiB` as bytes; like docker, k/m/g are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InvalidArgument(f"invalid size {text!r}", hint="write a number with k, m or g, such as 512m")
    return int(float(match[1]) * 1024 ** _POWER[match[2].lower()])


def print_size(count: float) -> str:
    """Print bytes with three significant digits and decimal units, as docker does: `1.23MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g}{unit}" if unit != "B" else f"{int(count)}B"
        count /= 1000
    raise AssertionError


def print_duration(seconds: float) -> str:
    """Print a duration shortly: `3ms`, `1.2s`, `4m10s`, `2h`, `5d`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    return f"{hours // 24}d"
