"""When and where a process runs: scheduler, I/O priority, CPUs, memory nodes, personality (config.md, config-linux.md).

`parse` is pure; `apply` is carried out by the process itself while it still may.
"""

from __future__ import annotations

import os

from kestrel.base.errors import FailedPrecondition, InvalidArgument
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
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MODE_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}
CPUS = 8192  # the most that a kernel is built for (CONFIG_NR_CPUS)
NODES = 1024  # more than any kernel is built for (CONFIG_NODES_SHIFT)
SHORTEST, LONGEST = 1024, 2**63 - 1  # nanoseconds a SCHED_DEADLINE process may run in a period
CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}  # linux/personality.h


WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """What was asked; None leaves something as it is. Times in nanoseconds (`man 2 sched_setattr`).

    `memory` is a mode with its flags, and memory nodes. `confined`: its CPUs are not all of the machine's.
    """

    policy: int | None = None
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0
    io: int | None = None
    personality: int | None = None
    memory: tuple[int, frozenset[int]] | None = None
    """A mode of memory policy and the nodes it is about (`man 2 set_mempolicy`)."""
    confined: bool = False
    """Its CPUs are not all of the machine's."""

    def apply(self) -> None:
        """Ask the kernel. Raises OSError."""
        if self.policy is not None:
            self._schedule(self.policy)
        if self.io is not None:
            syscalls.ioprio_set(self.io)
        if self.personality is not None:
            syscalls.personality(self.personality)
        if self.memory is not None:
            syscalls.set_mempolicy(*self.memory)

    def _schedule(self, policy: int) -> None:
        times = (self.runtime, self.deadline, self.period)
        try:
            syscalls.sched_setattr(policy, self.flags, self.nice, self.priority, times)
        except PermissionError:
            if not self.confined:
                raise
            raise FailedPrecondition(
                "process scheduler can't be used together with AllowedCPUs",
                hint="SCHED_DEADLINE wants all CPUs of the machine: leave out linux.resources.cpu.cpus",
            ) from None


def parse(process: Mapping[str, Any], linux: Mapping[str, Any]) -> Scheduling | None:
    """Return what a spec asks for, None when it asks for nothing. Raises InvalidArgument."""
    scheduler, io, personality = process.get("scheduler"), process.get("ioPriority"), linux.get("personality")
    memory = linux.get("memoryPolicy")
    if not (scheduler or io or personality or memory is not None):
        return None
    return Scheduling(
        **_scheduler(scheduler or {}),
        io=None if not io else _word(CLASSES, io.get("class"), "I/O class") << 13 | int(io.get("priority", 0)),
        personality=None if not personality else _personality(personality),
        memory=None if memory is None else _memory(memory),
        confined=bool(((linux.get("resources") or {}).get("cpu") or {}).get("cpus")),
    )


def _scheduler(given: Mapping[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    if given.get("policy") == "SCHED_DEADLINE":
        _check_deadline(given)
    return {
        "policy": _word(POLICIES, given.get("policy"), "scheduler policy"),
        "flags": sum(_word(FLAGS, name, "scheduler flag") for name in given.get("flags") or ()),
        **{name: int(given.get(name) or 0) for name in ("nice", "priority", "runtime", "deadline", "period")},
    }


def _check_deadline(given: Mapping[str, Any]) -> None:
    """Say what the kernel would only call an invalid argument (`man 7 sched`, SCHED_DEADLINE)."""
    for name in ("runtime", "deadline"):
        if name not in given:
            raise InvalidArgument(f"sched_setattr: `SCHED_DEADLINE` requires `{name}`")
    runtime, deadline = int(given["runtime"]), int(given["deadline"])
    if not runtime:
        raise InvalidArgument("sched_setattr: `SCHED_DEADLINE` runtime must be greater than 0")
    if not SHORTEST <= runtime <= LONGEST:
        raise InvalidArgument(
            f"sched_setattr: `SCHED_DEADLINE` runtime {runtime} must be between {SHORTEST} and {LONGEST} nanoseconds"
        )
    period = int(given.get("period") or deadline)
    for less, name, more, other in (
        (runtime, "runtime", deadline, "deadline"),
        (deadline, "deadline", period, "period"),
    ):
        if less > more:
            raise InvalidArgument(f"sched_setattr: `SCHED_DEADLINE` {name} {less} must be <= {other} {more}")


def _personality(given: Mapping[str, Any]) -> int:
    if given.get("flags"):
        raise InvalidArgument("linux.personality.flags: no flag is defined by the specification")
    return _word(DOMAINS, given.get("domain"), "personality domain")


def _memory(given: Mapping[str, Any]) -> tuple[int, frozenset[int]]:
    name, text = given.get("mode"), given.get("nodes") or ""
    mode = _word(MODES, name, "memory policy mode", "invalid")
    mode |= sum(_word(MODE_FLAGS, flag, "memory policy flag", "invalid") for flag in given.get("flags") or ())
    try:
        nodes = numbers(text, "memory nodes") or frozenset()
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid memory policy nodes: {error.message}") from None
    if nodes and max(nodes) >= NODES:
        raise InvalidArgument(f"invalid memory policy nodes: there is no node {max(nodes)}")
    if name in WITHOUT_NODES and nodes:
        raise InvalidArgument(f"{name} mode requires 0 nodes but got {len(nodes)}")
    return mode, nodes


def _word(table: Mapping[str, int], name: object, what: str, how: str = "unknown") -> int:
    if not isinstance(name, str) or name not in table:
        raise InvalidArgument(f"{how} {what} {name!r}", hint=f"one of {', '.join(table)}")
    return table[name]


def numbers(text: str, what: str) -> frozenset[int] | None:
    """Return the numbers of a list such as `0-3,7`; None for an empty one."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not part.strip():
            continue
        ends = [first, last] if dash else [first]
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends):
            raise InvalidArgument(f"{text!r} is not a list of {what}")
        found.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(found) or None


def move(wanted: frozenset[int] | None) -> None:
    """Run on these CPUs from now on."""
    if wanted:
        os.sched_setaffinity(0, wanted)


def move_anywhere() -> None:
    """Run on every CPU that our control group has, now and later, whatever whoever started us was bound to.

    The kernel leaves out of the mask what is not there or not the group's (`man 2 sched_setaffinity`).
    """
    if len(os.sched_getaffinity(0)) < (os.cpu_count() or 0):
        os.sched_setaffinity(0, range(CPUS))
