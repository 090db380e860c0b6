"""Signals by the names that people and images write."""

import signal

from kestrel.base.errors import InvalidArgument, nearest


def number(name: str) -> int:
    """Read `TERM`, `SIGTERM`, `15` or `RTMIN+3` as a signal number. Raises InvalidArgument."""
    text = name.upper().removeprefix("SIG")
    if text.isdigit() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    base, plus, offset = text.partition("+")
    if base == "RTMIN" and (not plus or offset.isdigit()):
        return signal.SIGRTMIN + int(offset or 0)
    try:
        return signal.Signals[f"SIG{text}"]
    except KeyError:
        close = nearest(text, [s.name.removeprefix("SIG") for s in signal.Signals])
        raise InvalidArgument(f"unknown signal {name!r}", hint=f"did you mean {close}?" if close else None) from None
