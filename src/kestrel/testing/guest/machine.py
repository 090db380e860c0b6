"""Boots the guest under QEMU's software emulation and reads what its tests report."""

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kestrel.base.errors import Unavailable
from kestrel.testing.guest import kernel, root

QEMU = "qemu-system-x86_64"
MEMORY = "1024"  # MiB
PROCESSORS = 2
TIMEOUT = 600.0  # seconds from boot to the end
COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off nokaslr no_timer_check tsc=reliable "
    "random.trust_cpu=on swapaccount=1 apparmor=0 audit=0"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one test; `outcome` is passed, failed, skipped or error."""

    name: str
    outcome: str
    seconds: float
    text: str


@dataclass(slots=True)
class Report:
    """All that the guest told. `release` is its kernel's, `code` pytest's exit code; None when it did not get there."""

    release: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    code: int | None = None
    running: str = ""
    prepared: float = 0.0
    booted: float = 0.0
    seconds: float = 0.0
    console: str = ""

    def of(self, *outcomes: str) -> list[Outcome]:
        """Return the tests that ended so."""
        return [outcome for outcome in self.outcomes if outcome.outcome in outcomes]

    @property
    def failures(self) -> list[Outcome]:
        """Return what is wrong; a guest that did not come to an end is one failure, with what it last said."""
        found = self.of("failed", "error")
        if self.code is None:
            last = "\n".join(self.console.splitlines()[-40:])
            found.append(Outcome(name=self.running or "boot", outcome="error", seconds=self.seconds, text=last))
        return found


def run(
    arguments: Sequence[str],
    *,
    checkout: Path,
    timeout: float = TIMEOUT,
    heard: Callable[[Outcome], None] | None = None,
) -> Report:
    """Run pytest with these arguments in the guest, at the root of `checkout`. Raises Unavailable before it boots."""
    if shutil.which(QEMU) is None:
        raise Unavailable(f"there is no {QEMU}", hint="install qemu-system-x86")
    found = kernel.find()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ktest-guest-", dir="/var/tmp") as name:
        directory = Path(name)
        image, ramdisk = root.build(directory, found, checkout, _command(arguments))
        report = Report(prepared=time.monotonic() - began)
        argv = _arguments(directory, found.image, image, ramdisk)
        began = time.monotonic()
        lines = _Lines(directory / "report", report, began, heard)
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                while process.poll() is None and time.monotonic() - began < timeout:
                    time.sleep(0.1)
                    lines.follow()
            finally:
                process.kill()
            _, said = process.communicate()
        lines.follow()
        report.seconds = time.monotonic() - began
        console = directory / "console"
        report.console = console.read_text(errors="replace") if console.exists() else ""
        report.console += said
        return report


def _command(arguments: Sequence[str]) -> str:
    """Return the guest's command line. Emulation is slow, so a test has more time than on a real machine."""
    pytest = [sys.executable, "-m", "pytest", "-p", "kestrel.testing.guest.reporter", "-p", "no:cacheprovider"]
    return " ".join(["PYTHONPATH=src", *map(shlex.quote, [*pytest, "-q", "-o", "timeout=300", *arguments])])


def _arguments(directory: Path, image: Path, disk: Path, ramdisk: Path) -> list[str]:
    return [
        *("nice", QEMU, "-machine", "pc,accel=tcg", "-cpu", "max", "-smp", str(PROCESSORS), "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(image), "-initrd", str(ramdisk), "-append", COMMAND_LINE),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
        *("-device", "virtio-rng-pci"),
        *("-serial", f"file:{directory}/console", "-serial", f"file:{directory}/report"),
    ]


class _Lines:
    """Reads the report while it grows."""

    def __init__(self, path: Path, report: Report, began: float, heard: Callable[[Outcome], None] | None) -> None:
        self._path, self._report, self._began, self._heard = path, report, began, heard
        self._read = 0

    def follow(self) -> None:
        """Take in all whole lines that have come since."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        match message.pop("kind"):
            case "session":
                self._report.release = message["release"]
                self._report.booted = time.monotonic() - self._began
            case "start":
                self._report.running = message["id"]
            case "test":
                outcome = Outcome(name=message.pop("id"), **message)
                self._report.outcomes.append(outcome)
                if self._heard is not None:
                    self._heard(outcome)
            case "end":
                self._report.code = message["code"]
