"""`kestrel run -it` and `exec -it` on a real terminal: sizes, keys, signals, and a terminal that is as it was after."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance, wait_until

pytestmark = pytest.mark.root


class Terminal:
    """A command of Kestrel on a pseudo-terminal, and the person in front of it."""

    def __init__(self, kestrel: Instance, arguments: tuple[str, ...], rows: int, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.slave = slave
        self.process = subprocess.Popen(
            kestrel.command(*arguments),
            env=kestrel.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - this process has no threads
        )
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, timeout: float = 15) -> re.Match[str]:
        """Read until a pattern appears after what was matched before."""
        end = time.monotonic() + timeout
        while not (match := re.search(pattern, self.seen)):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} did not come; there was {self.seen!r}")
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        self.seen = self.seen[match.end() :]
        return match

    def end(self, timeout: float = 15) -> int:
        """Wait for the command, and return its exit code."""
        return self.process.wait(timeout)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(platform: Instance) -> Iterator[Open]:
    opened: list[Terminal] = []

    def start(*arguments: str, rows: int = 40, columns: int = 100) -> Terminal:
        opened.append(Terminal(platform, arguments, rows, columns))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_a_shell_has_a_terminal_of_our_size_and_ends_with_its_code(terminal: Open) -> None:
    shell = terminal("run", "--rm", "-it", "box", "sh", rows=41, columns=97)
    shell.expect("# ")
    shell.type("tty; stty size; echo $TERM\r")
    shell.expect("/dev/pts/0")
    shell.expect("41 97")
    shell.expect("xterm")
    shell.type("exit 5\r")
    assert shell.end() == 5


def test_a_window_that_changes_tells_the_process(terminal: Open) -> None:
    shell = terminal(
        "run", "--rm", "-it", "box", "sh", "-c", "trap 'stty size' WINCH; echo up; while :; do read x; done"
    )
    shell.expect("up")
    shell.resize(33, 77)
    shell.expect("33 77")


def test_the_terminal_is_raw_meanwhile_and_as_before_afterwards(terminal: Open) -> None:
    shell = terminal("run", "--rm", "-it", "box", "sh", "-c", "echo up; read x; echo got $x")
    before = termios.tcgetattr(shell.slave)[3] | termios.ECHO
    shell.expect("up")
    assert not termios.tcgetattr(shell.slave)[3] & termios.ICANON
    shell.type("word\r")
    shell.expect("got word")
    assert shell.end() == 0
    assert termios.tcgetattr(shell.slave)[3] == before


def test_ctrl_c_interrupts_the_process_inside_and_not_the_command(terminal: Open) -> None:
    shell = terminal("run", "--rm", "-it", "box", "sh")
    shell.expect("# ")
    shell.type("sleep 100\r")
    shell.expect("sleep 100")
    time.sleep(0.2)
    shell.type("\x03")
    shell.type("echo code $?\r")
    shell.expect("code 130")


def test_ctrl_d_ends_a_shell(terminal: Open) -> None:
    shell = terminal("run", "--rm", "-it", "box", "sh")
    shell.expect("# ")
    shell.type("\x04")
    assert shell.end() == 0


def test_detach_keys_leave_the_container_running(platform: Instance, terminal: Open) -> None:
    shell = terminal("run", "--name", "left", "-it", "box", "sh")
    shell.expect("# ")
    shell.type("\x10")
    shell.type("\x11")
    assert shell.end() == 0
    assert platform.inspect("left")["state"] == "running"


def test_detach_keys_in_one_burst_work_too(platform: Instance, terminal: Open) -> None:
    shell = terminal("run", "--name", "left", "-it", "box", "sh")
    shell.expect("# ")
    shell.type("\x10\x11")
    assert shell.end() == 0
    assert platform.inspect("left")["state"] == "running"


def test_exec_has_a_terminal_of_its_own_size(platform: Instance, terminal: Open) -> None:
    platform("run", "-d", "--name", "host", "box", "sleep", "60")
    shell = terminal("exec", "-it", "host", "sh", rows=31, columns=71)
    shell.expect("# ")
    shell.type("stty size; echo $TERM; exit 9\r")
    shell.expect("31 71")
    shell.expect("xterm")
    assert shell.end() == 9


def test_exec_hears_of_a_window_that_changes(platform: Instance, terminal: Open) -> None:
    platform("run", "-d", "--name", "host", "box", "sleep", "60")
    shell = terminal("exec", "-it", "host", "sh", "-c", "trap 'stty size' WINCH; echo up; while :; do read x; done")
    shell.expect("up")
    shell.resize(21, 61)
    shell.expect("21 61")


def test_t_without_a_terminal_here_is_refused_with_a_remedy(platform: Instance) -> None:
    answer = platform("run", "--rm", "-it", "box", "sh", code=None)
    assert answer.code != 0
    assert "not a TTY" in answer.err
    assert "leave out -t" in answer.err


def test_pull_and_build_show_progress_in_place_on_a_terminal(
    terminal: Open, platform: Instance, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo from-the-step; sleep 0.5; echo more; sleep 0.5\n")
    build = terminal("build", "--no-cache", str(tmp_path))
    build.expect("\x1b\\[")
    assert build.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 41), (signal.SIGTERM, 42), (signal.SIGHUP, 43)])
def test_signals_to_the_command_reach_the_process(platform: Instance, number: signal.Signals, code: int) -> None:
    script = "trap 'exit 41' INT; trap 'exit 42' TERM; trap 'exit 43' HUP; echo up; while :; do sleep 0.05; done"
    with platform.start("run", "--rm", "box", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert process.wait(15) == code


def test_signals_to_an_exec_reach_its_process_alone(platform: Instance) -> None:
    platform("run", "-d", "--name", "host", "box", "sleep", "60")
    script = "trap 'exit 42' TERM; echo up; while :; do sleep 0.05; done"
    with platform.start("exec", "host", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 42
    assert platform.inspect("host")["state"] == "running"


def test_ctrl_c_ends_following_logs_and_leaves_the_container(platform: Instance) -> None:
    platform("run", "-d", "--name", "talker", "box", "sh", "-c", "while :; do echo tick; sleep 0.1; done")
    with platform.start("logs", "-f", "talker") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"tick\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert platform.inspect("talker")["state"] == "running"


def test_killing_the_command_leaves_the_container(platform: Instance) -> None:
    with platform.start("run", "--name", "alone", "box", "sh", "-c", "echo up; sleep 1; echo done") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    assert platform("wait", "alone").out == "0\n"
    wait_until(lambda: platform("logs", "alone").out == "up\ndone\n")


@pytest.fixture
def failing(tmp_path: Path) -> str:
    """A context whose last RUN writes a file and fails."""
    (tmp_path / "file").write_text("of the context")
    (tmp_path / "Dockerfile").write_text(
        "FROM box\nWORKDIR /w\nENV A=from-env\n"
        "RUN --mount=type=bind,target=/ctx --mount=type=tmpfs,target=/t echo begun; touch made; exit 3\n"
    )
    return str(tmp_path)


def steps(kestrel: Instance) -> list[str]:
    """The cgroups of steps that run."""
    return [group for group in kestrel.cgroups() if "/build/" in group]


def test_a_failed_run_is_entered_as_it_stands(terminal: Open, platform: Instance, failing: str) -> None:
    shell = terminal("build", "--on-error=shell", failing)
    shell.expect("failed with exit code 3")
    shell.expect("/w # ")
    shell.type("echo $A; pwd; ls; cat /ctx/file; mount | grep -c ' /t '; stty size\r")
    shell.expect("from-env\r\n/w\r\nmade\r\nof the context1\r\n40 100\r\n")
    assert steps(platform)
    shell.type("exit\r")
    shell.expect("error:.*failed with exit code 3")
    assert shell.end() == 1
    wait_until(lambda: not steps(platform))


def test_whoever_leaves_a_failed_run_by_hanging_up_leaves_nothing(
    terminal: Open, platform: Instance, failing: str
) -> None:
    shell = terminal("build", "--on-error=shell", failing)
    shell.expect("/w # ")
    shell.process.kill()
    wait_until(lambda: not steps(platform))
    wait_until(lambda: not os.listdir(platform.root / "snapshots"))


def test_hanging_up_ends_a_build_that_could_be_entered(terminal: Open, platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN sleep 60\n")
    build = terminal("build", "--on-error=shell", str(tmp_path))
    build.expect("RUN sleep 60 +[(]1[.0-9]*s")  # it is shown while it runs, and the time moves
    wait_until(lambda: steps(platform))
    build.process.kill()
    wait_until(lambda: not steps(platform))


def test_a_build_that_succeeds_ends_as_without(terminal: Open, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo fine\n")
    build = terminal("build", "--on-error=shell", str(tmp_path))
    build.expect("sha256:[0-9a-f]{64}")
    assert build.end() == 0


def test_without_a_terminal_it_is_said_how_to_enter(platform: Instance, failing: str) -> None:
    for arguments in (("build",), ("build", "--on-error=shell")):
        failed = platform(*arguments, failing, code=1)
        assert "to look around where it failed" in failed.err
        assert "terminal" in failed.err
