"""The guest's half of the conversation: a pytest plugin that writes what happens to a serial line, a JSON a line.

    {"kind": "session", "release": "6.1.0-56-cloud-amd64"}
    {"kind": "test", "id": "tests/...::test_x", "outcome": "failed", "seconds": 0.2, "text": "..."}
    {"kind": "end", "code": 1}

Without `end` the guest has not come to one, and the console tells why.
"""

import json
import os
import sys
from typing import Any

import pytest

LINE = "KESTREL_GUEST_REPORT"
"""Names the serial line's device, in the environment."""


class Reporter:
    """Follows a session."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        self._seconds: dict[str, float] = {}

    def _tell(self, **message: Any) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]

    def pytest_sessionstart(self) -> None:
        """The guest is up."""
        self._tell(kind="session", release=os.uname().release, python=sys.version.split()[0])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported is an error of its own."""
        if report.failed:
            self._tell(kind="test", id=report.nodeid, outcome="error", seconds=0.0, text=report.longreprtext)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Told ahead, so that a test which takes the whole guest with it is named."""
        self._tell(kind="start", id=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test is told once, after its call, and again when setting it up or taking it down fails or skips."""
        total = self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.when == "call" or report.outcome != "passed":
            outcome = "error" if report.failed and report.when != "call" else report.outcome
            self._tell(kind="test", id=report.nodeid, outcome=outcome, seconds=round(total, 3), text=_text(report))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """All tests have ended."""
        self._tell(kind="end", code=int(exitstatus))


def _text(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return report.longreprtext


def pytest_configure(config: pytest.Config) -> None:
    """Register, in the guest only."""
    path = os.environ.get(LINE)
    if path:
        config.pluginmanager.register(Reporter(path), "kestrel-guest-reporter")
