"""Taking times fairly: interleaved rounds, medians, ratios."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Row:
    """One line of the table: a subject, and for each program its times in seconds (or another unit)."""

    name: str
    budget: str
    unit: str = "ms"
    times: dict[str, list[float]] = field(default_factory=dict)

    def median(self, program: str) -> float:
        return statistics.median(self.times[program])


def command(argv: Sequence[str], env: dict[str, str] | None = None) -> float:
    """Run a command to its end and return the seconds it took; a failure ends the benchmark with its output."""
    began = time.perf_counter()
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed ({done.returncode}): {done.stderr.decode()[-2000:]}")
    return took


def rounds(row: Row, programs: dict[str, Callable[[], float]], count: int, warmup: int = 2) -> Row:
    """Measure each program `count` times, in turn."""
    for number in range(warmup + count):
        for name, once in programs.items():
            took = once()
            if number >= warmup:
                row.times.setdefault(name, []).append(took)
    return row


def memory_pss(pid: int) -> float:
    """Proportional set size of a process in bytes (`man 5 proc`, smaps_rollup)."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024.0 for line in file if line.startswith("Pss:"))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown: medians, and how many times as long each peer takes as Kestrel."""
    lines = ["| what | kestrel | peers (times as much) | budget |", "|---|---|---|---|"]
    for row in rows:
        scale = {"ms": 1e3, "s": 1, "MB": 1e-6, "/s": 1}[row.unit]
        own = row.median("kestrel")
        peers = []
        for name in row.times:
            if name == "kestrel":
                continue
            other = row.median(name)
            ratio = own / other if row.unit == "/s" else other / own
            peers.append(f"{name} {other * scale:.3g} {row.unit} ({ratio:.2g}×)")
        lines.append(f"| {row.name} | {own * scale:.3g} {row.unit} | {', '.join(peers) or '-'} | {row.budget} |")
    return "\n".join(lines)


def machine() -> str:
    """Say on what this ran, as far as it matters for reading the ratios."""
    return f"{os.cpu_count()} cores, kernel {os.uname().release.split('-')[0]}"
