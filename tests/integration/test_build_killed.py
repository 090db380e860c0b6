"""A build that is cancelled, or whose daemon is killed, leaves nothing of itself, and is built anew."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance, read, wait_until

pytestmark = pytest.mark.root

# The step says when it runs, writes half of what it is to leave, and has a child of its own.
STEP = "echo half > /half; mkfifo /p; (sleep {mark} & wait) & echo running; sleep {mark}"


def sleepers(mark: int) -> list[str]:
    """Return the processes of the step, told by their odd number of seconds."""
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    return [pid for pid in pids if f"sleep\0{mark}\0".encode() in read(f"/proc/{pid}/cmdline")]


def start(kestrel: Instance, context: Path, mark: int, *, last: str = "") -> "subprocess.Popen[bytes]":
    """Begin a build and return its process once its step runs."""
    (context / "Dockerfile").write_text(f"FROM box\nRUN {last or STEP.format(mark=mark)}\n")
    before = len(sleepers(mark))
    process = kestrel.start("build", "-q", str(context))
    wait_until(lambda: len(sleepers(mark)) > before or process.poll() is not None)
    return process


def roots(kestrel: Instance) -> list[str]:
    """Return the writable roots of steps that are on disk, and layers that are not whole."""
    found = [str(p) for p in (kestrel.root / "layers").glob("**/snapshots/build-*")]
    return found + [str(p) for p in (kestrel.root / "layers").glob("**/layers/new/*")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_whose_command_ends_leaves_nothing(own_platform: Instance, tmp_path: Path, number: int) -> None:
    mark = 70_001 + number
    process = start(own_platform, tmp_path, mark)
    process.send_signal(number)
    process.communicate()
    wait_until(lambda: not sleepers(mark))
    wait_until(lambda: roots(own_platform) == [])
    wait_until(lambda: not [t for t in own_platform.traces(files=False) if "step-" in t])


def test_a_build_whose_daemon_is_killed_leaves_nothing_after_the_next_start(
    own_platform: Instance, tmp_path: Path
) -> None:
    mark = 70_101
    process = start(own_platform, tmp_path, mark)
    own_platform.kill_daemon()
    process.communicate()
    assert process.returncode != 0
    wait_until(lambda: not sleepers(mark))  # and nobody has to start it again for that
    own_platform("up")
    wait_until(lambda: roots(own_platform) == [])
    wait_until(lambda: not [t for t in own_platform.traces(files=False) if "step-" in t])
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN ! ls /half && echo whole > /half\n")
    own_platform("build", "-q", str(tmp_path))


def test_a_build_goes_on_when_another_that_shares_its_step_is_killed(own_platform: Instance, tmp_path: Path) -> None:
    mark = 70_201
    step = f"echo one > /f; sleep 2; [ -e /none ] || echo two >> /f; # sleep {mark}"
    contexts = [tmp_path / "a", tmp_path / "b"]
    builds = []
    for context in contexts:
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM box\nRUN {step}\n")
        builds.append(own_platform.start("build", "-q", "-t", f"made-{context.name}", str(context)))
    wait_until(
        lambda: [p for p in os.listdir("/proc") if p.isdigit() and str(mark).encode() in read(f"/proc/{p}/cmdline")]
    )
    builds[0].kill()
    builds[0].communicate()
    err = builds[1].communicate()[1]
    assert builds[1].returncode == 0, err
    assert own_platform("run", "--rm", "made-b", "cat", "/f").out == "one\ntwo\n"
