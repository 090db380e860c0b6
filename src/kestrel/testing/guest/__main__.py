"""`python -m kestrel.testing.guest [--timeout SECONDS] PYTEST-ARGUMENT...`: run tests of this checkout in the guest."""

import sys
from pathlib import Path

from kestrel.base.errors import KestrelError
from kestrel.testing.guest import Outcome, run
from kestrel.testing.guest.machine import TIMEOUT


def main(arguments: list[str]) -> int:
    """Print each test as it ends, what failed, and the times; return pytest's exit code."""
    timeout = TIMEOUT
    if arguments[:1] == ["--timeout"]:
        timeout, arguments = float(arguments[1]), arguments[2:]

    def heard(outcome: Outcome) -> None:
        print(f"{outcome.outcome:8} {outcome.seconds:7.2f} s  {outcome.name}", flush=True)  # noqa: T201 - it is a command

    try:
        report = run(arguments, checkout=Path(__file__).parents[4], timeout=timeout, heard=heard)
    except KestrelError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 2
    lines = [f"\n=== {failure.name}\n{failure.text}" for failure in report.failures]
    counted = ", ".join(f"{len(report.of(kind))} {kind}" for kind in ("passed", "failed", "error", "skipped"))
    lines.append(
        f"{counted} on Linux {report.release}: {report.prepared:.1f} s to make, "
        f"{report.booted:.1f} s to the first test, {report.seconds:.1f} s in all"
    )
    print("\n".join(lines))  # noqa: T201 - as above
    return 1 if report.code is None else report.code


sys.exit(main(sys.argv[1:]))
