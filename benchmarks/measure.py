"""Taking times fairly: interleaved rounds, medians, ratios."""

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCALES = {"ms": 1e3, "s": 1.0, "MB": 1e-6, "%": 1.0, "/s": 1.0, "MB/s": 1e-6, "×": 1.0, "": 1.0}
"""From what is measured (seconds, bytes, per cent, a rate) to what is shown."""
BEST_PEER = "at most the best peer"
BEST_RATE = "at least the best peer"


@dataclass
class Row:
    """One line of the table: a subject, and for each program what was measured, in seconds, bytes, % or a rate.

    `budget` is in the shown unit; `reference` is what a peer took that is not measured here (design, section 5).
    """

    name: str
    budget: "float | str | None" = None
    unit: str = "ms"
    reference: str = ""
    times: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""

    @property
    def more_is_better(self) -> bool:
        return self.unit.endswith("/s")

    def add(self, program: str, value: float) -> None:
        self.times.setdefault(program, []).append(value)

    def median(self, program: str) -> float:
        """Return the median as it is shown."""
        return statistics.median(self.times[program]) * SCALES[self.unit]

    def spread(self, program: str) -> tuple[float, float]:
        """Return the smallest and the largest, as they are shown."""
        return min(self.times[program]) * SCALES[self.unit], max(self.times[program]) * SCALES[self.unit]

    def ratio(self, peer: str) -> float:
        """How many times as good Kestrel is: above 1 it is the faster, or the smaller."""
        own, other = self.median("kestrel"), self.median(peer)
        if self.more_is_better:
            own, other = other, own
        return other / own if own else math.inf

    def within_budget(self) -> "bool | None":
        """Say whether the median keeps the budget; None when there is none."""
        if self.budget is None or "kestrel" not in self.times:
            return None
        own = self.median("kestrel")
        if isinstance(self.budget, str):
            peers = [self.median(name) for name in self.times if name != "kestrel"]
            if not peers:
                return None
            return own >= max(peers) if self.more_is_better else own <= min(peers)
        return own >= self.budget if self.more_is_better else own <= self.budget


def command(argv: Sequence[str], env: "Mapping[str, str] | None" = None) -> float:
    """Run a command to its end and return the seconds it took; a failure ends the row with its output."""
    began = time.perf_counter()
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed ({done.returncode}): {done.stderr.decode()[-2000:]}")
    return took


def output(argv: Sequence[str]) -> str:
    """Run a command and return what it printed, without the last newline."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed ({done.returncode}): {done.stderr[-2000:]}")
    return done.stdout.strip()


def rounds(
    row: Row, programs: Mapping[str, Callable[[], float]], count: int, *, warmup: int = 1, pause: float = 0.0
) -> Row:
    """Measure each program `count` times, in turn; `pause` lets what the one before left behind come to its end."""
    for number in range(warmup + count):
        for name, once in programs.items():
            time.sleep(pause)
            took = once()
            if number >= warmup:
                row.add(name, took)
    return row


def pss(pid: int) -> float:
    """Proportional set size of a process in bytes (`man 5 proc`, smaps_rollup)."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024.0 for line in file if line.startswith("Pss:"))


def rss(pid: int) -> float:
    """Resident set size of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))


def cpu_seconds(pid: int) -> float:
    """Processor time all threads of a process have used so far (the kernel's sched-stats.rst: nanoseconds)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def busy(seconds: float = 0.5) -> float:
    """How much of the machine is at work for others, in per cent of all cores, while we do nothing."""
    first = _ticks()
    time.sleep(seconds)
    second = _ticks()
    total = sum(second) - sum(first)
    idle = second[3] + second[4] - first[3] - first[4]
    return 100.0 * (total - idle) / total if total else 0.0


def _ticks() -> list[int]:
    with open("/proc/stat") as file:
        return [int(word) for word in file.readline().split()[1:9]]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown: medians, and how many times as good Kestrel is as each peer."""
    lines = ["| what | kestrel | budget | peers (how many times as good Kestrel is) |", "|---|---|---|---|"]
    lines += [_line(row) for row in rows]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if "kestrel" not in row.times:
        return f"| {row.name} | not measured: {row.note} | {_budget(row)} | - |"
    peers = [
        f"{name} {_shown(row.median(name), row.unit)} ({row.ratio(name):.2g}×)"
        for name in row.times
        if name != "kestrel"
    ]
    if row.reference:
        peers.append(f"not measured here: {row.reference}")
    own = _shown(row.median("kestrel"), row.unit)
    if len(row.times["kestrel"]) > 2:
        least, most = row.spread("kestrel")
        own += f" ({least:.3g} to {most:.3g})"
    return f"| {row.name} | {own} | {_budget(row)} | {', '.join(peers) or '-'}{'; ' + row.note if row.note else ''} |"


def _budget(row: Row) -> str:
    if row.budget is None:
        return "-"
    text = row.budget if isinstance(row.budget, str) else _shown(row.budget, row.unit)
    kept = row.within_budget()
    return text if kept is None else f"{text}: {'kept' if kept else '**over**'}"


def _shown(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number}{'' if unit == '/s' else ' '}{unit}"


def machine() -> str:
    """Say on what this ran, as far as it matters for reading the ratios."""
    with open("/proc/cpuinfo") as file:
        model = next(
            (line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown processor"
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    python = ".".join(map(str, sys.version_info[:3]))
    kernel = os.uname().release.split("-")[0]
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, kernel {kernel}, Python {python}"
