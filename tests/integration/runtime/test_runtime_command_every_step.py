"""The same as `test_runtime_every_step` for `kestrel-runtime`, whose processes end: what dies leaves what it had to.

A command that fails takes back what it made. One that is killed cannot; then `delete --force` removes all of it, and
no process waits for somebody who will never come. CI tries commands that make and remove, `./dev faults` all.
"""

import errno
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kestrel.linux import cgroups
from kestrel.oci.runtime_defaults import default_seccomp, default_spec
from kestrel.testing.faults import KILL, MARK, UNFAILING, Faults

pytestmark = [pytest.mark.root, pytest.mark.timeout(3000)]

EVERY = bool(os.environ.get("KESTREL_EVERY_STEP"))
BEFORE = {
    "create": (),
    "start": (["create"],),
    "exec": (["create"], ["start", "c"]),
    "kill": (["create"], ["start", "c"]),
    "delete": (["create"], ["start", "c"], ["kill", "c", "KILL"]),
    "run": (),
}
"""Commands, and what must have been done before."""
SHORT = {"run": ["true"]}
REMOVING = ("ending.delete", "groups.group_of", "bundles.forget", "Creation.undo")
"""What takes things back; if that fails, it has to be asked for once more."""


@dataclass
class World:
    """A bundle, a shell of commands, and the hand of fate."""

    faults: Faults
    home: Path
    shell: "subprocess.Popen[str]"

    @property
    def group(self) -> str:
        return f"kestrel-test-{self.faults.token}"

    def spec(self, *args: str) -> None:
        spec = default_spec(args, namespaces=("pid", "mount", "network", "ipc", "uts", "cgroup"))
        spec["root"] = {"path": "rootfs"}
        spec["linux"] |= {"seccomp": default_seccomp(), "cgroupsPath": f"/{self.group}/c"}
        spec["process"]["env"] = ["PATH=/bin", f"{MARK}={self.faults.token}"]
        (self.home / "bundle/config.json").write_text(json.dumps(spec))

    def __call__(self, *words: str) -> int:
        """Run a command to its end; return its exit code, negative for a signal."""
        if words[0] in ("create", "run"):
            words = (words[0], "--bundle", str(self.home / "bundle"), "c")
        elif words[0] == "exec":
            words = ("exec", "c", "true")
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write("\t".join(["--root", str(self.home / "state"), *words]) + "\n")
        self.shell.stdin.flush()
        return int(self.shell.stdout.readline())

    def prepare(self, command: str) -> None:
        """Do what has to be done before a command."""
        self.spec(*SHORT.get(command, ["sleep", "600"]))
        for words in BEFORE[command]:
            assert self(*words) == 0
        if command == "delete":
            self.until(lambda: not self.containers())

    def until(self, condition: object) -> None:
        due = time.monotonic() + 5
        while not condition() and time.monotonic() < due:  # type: ignore[operator]
            time.sleep(0.002)

    def containers(self) -> list[str]:
        """Return the processes that are not the shell."""
        return [process for process in self.faults.alive() if not process.endswith(f" {self.shell.pid}")]

    def known(self) -> bool:
        """Whether the first process of the container is on record."""
        try:
            return bool(json.loads((self.home / "state/c/state.json").read_text())["pid"])
        except OSError:
            return False

    def left(self) -> list[str]:
        """Return what there is of a container."""
        self.until(lambda: not self.containers())
        found = self.containers() + [top for top, _, _ in os.walk("/sys/fs/cgroup") if top.endswith(f"{self.group}/c")]
        found += [str(path) for path in (self.home / "state").glob("c*")]
        return found + (["a mount"] if self.faults.token in Path("/proc/self/mountinfo").read_text() else [])

    def each(self, command: str, role: str, how: int) -> None:
        """Run a command once for each step of it, or of the process it makes, with something happening there."""
        arguments = ["c", "KILL"] if command == "kill" else ["c"]
        self.prepare("run")
        assert self("run") == 0  # what is cached is cached now
        self.prepare(command)
        self.faults.watch(role)
        assert self(command, *arguments) == 0
        steps = self.faults.steps()
        self.faults.disarm()
        self("delete", "--force", "c")
        assert self.left() == []
        assert steps
        if not EVERY:
            steps = list({what: (number, what) for number, what in reversed(steps)}.values())
        wrong, happened = [], 0
        for number, what in steps:
            if how != KILL and what.split()[0] in UNFAILING:
                happened += 1
                continue
            self.prepare(command)
            self.faults.arm(role, number, how)
            code = self(command, *arguments)
            where = self.faults.happened
            happened += bool(where)
            self.faults.disarm()
            undone = code > 0 and command in ("create", "run") and not any(word in where for word in REMOVING)
            problems = self.left() if undone else []
            if code > 0 and command == "exec":
                self.until(lambda: len(self.containers()) == 1)
                self("state", "c")  # the shell reaps orphans between commands, and the container ends after them
            if code > 0 and command == "exec" and len(self.containers()) != 1:
                problems.append(f"besides the container there are {self.containers()}")
            if not self.known():
                self.until(lambda: not self.containers())
                problems += [f"nobody knows of {process}" for process in self.containers()]
            if self("delete", "--force", "c") != 0:
                problems.append("delete --force fails")
            problems += self.left()
            wrong += [f"{where or what} (exit code {code}): {problem}" for problem in problems]
            if problems:
                cgroups.destroy(f"{self.group}/c")
        assert not wrong, "\n".join(wrong)
        assert happened > len(steps) * 0.7  # the number of steps varies where somebody is waited for


@pytest.fixture
def world(layer: Path) -> Iterator[World]:
    home = Path(tempfile.mkdtemp(prefix="ktest-cold-"))
    (home / "bundle").mkdir()
    shutil.copytree(layer, home / "bundle/rootfs", symlinks=True)
    faults = Faults(home)
    made = World(faults, home, faults.shell())
    yield made
    made("delete", "--force", "c")
    made.shell.communicate()
    cgroups.destroy(made.group)
    shutil.rmtree(home)


PAIRS = [("create", "command"), ("delete", "command"), ("exec", "joiner")]
if EVERY:
    PAIRS = [(name, "command") for name in BEFORE]
    PAIRS += [("create", "init"), ("run", "init"), ("exec", "joiner"), ("exec", "joined")]


@pytest.mark.parametrize(("command", "role"), PAIRS)
def test_what_dies_at_any_step_of_a_command_is_removed_by_delete(world: World, command: str, role: str) -> None:
    world.each(command, role, KILL)


@pytest.mark.parametrize(("command", "role"), PAIRS)
def test_a_command_that_fails_at_any_step_leaves_nothing(world: World, command: str, role: str) -> None:
    world.each(command, role, errno.ENOMEM)
