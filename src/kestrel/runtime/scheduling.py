"""When and where a process runs: its scheduler, I/O priority, CPUs and personality (config.md, config-linux.md).

`parse` is pure; `apply` is carried out by the process itself while it still may.
"""

from __future__ import annotations

import os

from kestrel.base.errors import InvalidArgument
from kestrel.base.values import dataclass
from kestrel.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}  # linux/personality.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """What was asked; None leaves something as it is. Times in nanoseconds (`man 2 sched_setattr`)."""

    policy: int | None = None
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0
    io: int | None = None
    personality: int | None = None

    def apply(self) -> None:
        """Ask the kernel. Raises OSError."""
        if self.policy is not None:
            times = (self.runtime, self.deadline, self.period)
            syscalls.sched_setattr(self.policy, self.flags, self.nice, self.priority, times)
        if self.io is not None:
            syscalls.ioprio_set(self.io)
        if self.personality is not None:
            syscalls.personality(self.personality)


def parse(process: Mapping[str, Any], linux: Mapping[str, Any]) -> Scheduling | None:
    """Return what a spec asks for, None when it asks for nothing. Raises InvalidArgument."""
    scheduler, io, personality = process.get("scheduler"), process.get("ioPriority"), linux.get("personality")
    if not (scheduler or io or personality):
        return None
    return Scheduling(
        **_scheduler(scheduler or {}),
        io=None if not io else _word(CLASSES, io.get("class"), "I/O class") << 13 | int(io.get("priority", 0)),
        personality=None if not personality else _personality(personality),
    )


def _scheduler(given: Mapping[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    return {
        "policy": _word(POLICIES, given.get("policy"), "scheduler policy"),
        "flags": sum(_word(FLAGS, name, "scheduler flag") for name in given.get("flags") or ()),
        **{name: int(given.get(name) or 0) for name in ("nice", "priority", "runtime", "deadline", "period")},
    }


def _personality(given: Mapping[str, Any]) -> int:
    if given.get("flags"):
        raise InvalidArgument("linux.personality.flags: no flag is defined by the specification")
    return _word(DOMAINS, given.get("domain"), "personality domain")


def _word(table: Mapping[str, int], name: object, what: str) -> int:
    if not isinstance(name, str) or name not in table:
        raise InvalidArgument(f"unknown {what} {name!r}", hint=f"one of {', '.join(table)}")
    return table[name]


def cpus(text: str) -> frozenset[int] | None:
    """Return the CPUs of a list such as `0-3,7`; None for an empty one."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not part.strip():
            continue
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InvalidArgument(f"{text!r} is not a list of CPUs")
        found.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(found) or None


def move(wanted: frozenset[int] | None) -> None:
    """Run on these CPUs from now on."""
    if wanted:
        os.sched_setaffinity(0, wanted)
