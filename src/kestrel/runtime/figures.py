"""Numbers on the command line and in its output: limits for `update`, usage for `events`."""

from __future__ import annotations

import os
import select
import time

from kestrel.base import plainjson
from kestrel.base.errors import InvalidArgument
from kestrel.oci import runtime_shape
from kestrel.runtime import bundles, groups
from kestrel.runtime.arguments import Options
from kestrel.runtime.bundles import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# option: (member of linux.resources, its member, whether a size)
_MEMBERS = {
    "blkio-weight": ("blockIO", "weight", False),
    "cpu-period": ("cpu", "period", False),
    "cpu-quota": ("cpu", "quota", False),
    "cpu-rt-period": ("cpu", "realtimePeriod", False),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", False),
    "cpu-burst": ("cpu", "burst", False),
    "cpu-idle": ("cpu", "idle", False),
    "cpu-share": ("cpu", "shares", False),
    "memory": ("memory", "limit", True),
    "memory-reservation": ("memory", "reservation", True),
    "memory-swap": ("memory", "swap", True),
    "kernel-memory": ("memory", "kernel", True),
    "kernel-memory-tcp": ("memory", "kernelTCP", True),
    "pids-limit": ("pids", "limit", False),
}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
LONGEST = 1e6  # seconds to wait at once: poll(2) takes an int of milliseconds
_DURATIONS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def wanted(options: Options) -> dict[str, Any]:
    """Return the limits to change, in the form of `linux.resources`: from a file, from `-` or from options."""
    source = options.text("resources")
    if source == "-":
        with open(0, encoding="utf-8", errors="surrogateescape", closefd=False) as file:
            return _resources(file.read(), "standard input")
    if source:
        return bundles.read_spec(source, runtime_shape.RESOURCES)
    found: dict[str, Any] = {}
    for option, (kind, member, is_size) in _MEMBERS.items():
        text = options.text(option)
        if text:
            found.setdefault(kind, {})[member] = size(text) if is_size else _number(text, option)
    for option, member in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if options.text(option):
            found.setdefault("cpu", {})[member] = options.text(option)
    return found


def _resources(text: str, where: str) -> dict[str, Any]:
    try:
        value = plainjson.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"{where} is not JSON: {error}") from error
    found: dict[str, Any] = runtime_shape.fitted(value, runtime_shape.RESOURCES, where)
    return found


def _number(text: str, name: str) -> int:
    try:
        return int(_digits(text, "-"))
    except ValueError:
        raise InvalidArgument(f"invalid value for {name}: {text!r} is not a number") from None


def size(text: str) -> int:
    """Return bytes for `64m`, `1.5G`, `1048576` or -1."""
    if text == "-1":
        return -1
    number = text.lower().removesuffix("b").removesuffix("i")
    unit = number.lstrip("0123456789. ")
    try:
        return int(float(_digits(number.removesuffix(unit).rstrip(), ".")) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgument(f"{text!r} is not a size", hint="bytes, or a number with k, m, g, t or p") from None


def seconds(text: str) -> float:
    """Return seconds for `5s`, `500ms`, `1m30s` (Go's durations)."""
    found, rest = 0.0, text
    try:
        while rest:
            behind = rest.lstrip("0123456789.")
            following = behind.lstrip("hmnsuµ")
            unit = behind.removesuffix(following)
            found += float(rest.removesuffix(behind)) * _DURATIONS[unit]
            rest = following
    except (ValueError, KeyError):
        raise InvalidArgument(f"{text!r} is not a duration", hint="such as 5s, 500ms or 1m30s") from None
    return found


def _digits(text: str, others: str) -> str:
    """Return a number's text. Raises ValueError for what only Python takes for one: `1_000`, `1e9`, `inf`."""
    if text.strip(f"0123456789{others}"):
        raise ValueError(text)
    return text


def event(record: Record) -> dict[str, Any]:
    """Return a container's use of resources, in the form of runc's `events --stats`; what is not counted is absent."""
    group = groups.group_of(record)
    if group is None:
        return {"type": "stats", "id": record.id, "data": {}}
    found = group.stats()
    both = None if found.memory is None or found.swap is None else found.memory + found.swap
    data = {
        "cpu": {
            "usage": {"total": found.cpu, "kernel": found.cpu_system, "user": found.cpu_user},
            "throttling": {"throttledTime": found.throttled},
        },
        "memory": {
            "usage": {"usage": found.memory, "limit": found.memory_limit},
            "swap": {"usage": both},
            "raw": {
                "rss": found.rss,
                "swap": found.swap,
                "pgfault": found.page_faults,
                "pgmajfault": found.major_page_faults,
            },
        },
        "pids": {"current": found.pids},
    }
    return {"type": "stats", "id": record.id, "data": _present(data)}


def follow(record: Record, pause: float) -> Iterator[dict[str, Any]]:
    """Yield a container's use of resources every `pause` seconds, and that it ran out of memory, until it has ended."""
    group = groups.group_of(record)
    watch = group.oom_watch() if group is not None else None
    poll, pidfd = select.poll(), os.pidfd_open(record.pid)
    poll.register(pidfd, select.POLLIN)
    if watch is not None:
        poll.register(watch.fd, select.POLLPRI if watch.urgent else select.POLLIN)
    due = time.monotonic()
    while True:
        ready = dict(poll.poll(max(0.0, min(due - time.monotonic(), LONGEST)) * 1000))
        if pidfd in ready:
            return
        if watch is not None and watch.fd in ready:
            watch.take()
            yield {"type": "oom", "id": record.id}
        if time.monotonic() >= due:
            yield event(record)
            due += pause


def _present(value: dict[str, Any]) -> dict[str, Any]:
    kept = {k: _present(v) if isinstance(v, dict) else v for k, v in value.items() if v is not None}
    return {k: v for k, v in kept.items() if v != {}}
