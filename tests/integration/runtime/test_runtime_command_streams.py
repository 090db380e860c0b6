"""`kestrel-runtime` as who calls it may leave it: with its input, output or log closed or full, and interrupted."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


def shell(runtime: Any, words: str, rest: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the command with a shell's redirections."""
    line = f"{shlex.join([*runtime.line, '--root', str(runtime.home / 'state')])} {words} {rest}"
    with (runtime.home / "stderr").open("w+") as err:  # not a pipe, which a container would keep open
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], stderr=err, text=True, timeout=30)
    return subprocess.CompletedProcess(line, done.returncode, "", (runtime.home / "stderr").read_text())


@pytest.mark.parametrize(("closed", "numbers"), [(">&-", (1,)), ("<&-", (0,)), ("<&- >&- 2>&-", (0, 1, 2))])
def test_what_is_closed_is_the_null_device_to_a_container(runtime: Any, closed: str, numbers: tuple[int, ...]) -> None:
    done = shell(runtime, f"run -d -b {runtime.bundle} one", closed)
    assert (done.returncode, done.stderr) == (0, "")
    pid_file = runtime.home / "pid"
    done = shell(runtime, f"exec -d --pid-file {pid_file} one sleep 60", closed)
    assert (done.returncode, done.stderr) == (0, "")
    for pid in (runtime.state("one")["pid"], pid_file.read_text()):
        assert {os.stat(f"/proc/{pid}/fd/{number}").st_rdev for number in numbers} == {os.makedev(1, 3)}


@pytest.mark.parametrize("words", ["list", "features", "state one", "ps one", "--help"])
def test_output_that_cannot_be_written_is_an_error_of_one_sentence(runtime: Any, words: str) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert (shell(runtime, words, ">&-").returncode, shell(runtime, words, "| true").stderr) == (0, "")
    done = shell(runtime, words, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the output cannot be written: No space left on device" in done.stderr


def test_events_end_quietly_when_nobody_reads_them_any_more(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    done = shell(runtime, "events --interval 20ms one", "| head -1")
    assert (done.returncode, done.stderr) == (141, "")


def test_what_cannot_be_said_does_not_change_what_is_done(runtime: Any) -> None:
    runtime.spec("sleep", "60", process={"capabilities": {"bounding": ["CAP_ODD"]}})
    done = shell(runtime, f"run -d -b {runtime.bundle} one", "2>/dev/full")
    assert done.returncode == 0
    assert runtime.state("one")["status"] == "running"
    assert shell(runtime, "state none", "2>/dev/full").returncode == 1


def test_a_log_that_is_full_is_said_to_be_once(runtime: Any) -> None:
    runtime.spec("sleep", "60", process={"capabilities": {"bounding": ["CAP_ODD"], "permitted": ["CAP_EVEN"]}})
    done = runtime("--log", "/dev/full", "--debug", "run", "-d", "--bundle", str(runtime.bundle), "one")
    assert (done.returncode, done.stderr.count("the log /dev/full cannot be written")) == (0, 1)
    assert "CAP_ODD" in done.stderr
    done = runtime("--log", "/dev/full", "state", "none")
    assert (done.returncode, done.stderr.count("container does not exist: none")) == (1, 1)


@contextmanager
def called(runtime: Any, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Have the command at work, and see that it says nothing more than it has to."""
    with (runtime.home / "stderr").open("w") as err:
        line = [*runtime.line, "--root", str(runtime.home / "state"), *words]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=err, text=True) as process:
            try:
                yield process
            finally:
                process.kill()
    assert (runtime.home / "stderr").read_text() == ""


def test_events_are_interrupted_quietly(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    with called(runtime, "events", "one") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_creation_that_is_interrupted_leaves_nothing(runtime: Any, verb: str, number: signal.Signals) -> None:
    begun = runtime.home / "begun"
    script = f"echo $$ >{begun}.new; mv {begun}.new {begun}; exec sleep 20"
    runtime.spec("true", hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
    with called(runtime, verb, "--bundle", str(runtime.bundle), "one") as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(10) == 130
    assert not (runtime.home / "state/one").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{runtime.cgroup}"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
