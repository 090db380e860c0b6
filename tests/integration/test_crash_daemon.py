"""`kill -9` of the daemon at any moment: containers go on, their logs are whole, and the next one takes them back."""

import os
import random
import signal
import time
from contextlib import ExitStack

import pytest

from kestrel.testing.instance import Instance, alive, kill, wait_until

pytestmark = pytest.mark.root

COUNT = "i=0; while [ $i -lt {last} ]; do i=$((i+1)); echo $i; [ $((i % 50)) = 0 ] && sleep 0.02; done; exit 9"


@pytest.fixture
def kestrel(own_platform: Instance) -> Instance:
    return own_platform


def counted(kestrel: Instance, name: str, last: int) -> None:
    """Check that the log of a container that counted has every number once."""
    assert kestrel("logs", name).out.split() == [str(n) for n in range(1, last + 1)]


def test_a_container_goes_on_and_its_log_has_no_gap(kestrel: Instance) -> None:
    kestrel("run", "-d", "--name", "counter", "box", "sh", "-c", COUNT.format(last=6000))
    for _ in range(5):
        time.sleep(random.uniform(0, 0.2))
        kestrel.kill_daemon()
    assert kestrel("wait", "counter").out == "9\n"
    counted(kestrel, "counter", 6000)


def test_a_container_that_ended_while_no_daemon_ran_has_its_code_and_log(kestrel: Instance) -> None:
    kestrel("run", "-d", "--name", "counter", "box", "sh", "-c", "sleep 0.5; " + COUNT.format(last=100))
    pid = kestrel.inspect("counter")["pid"]
    kestrel.kill_daemon()
    wait_until(lambda: not alive(pid))
    found = kestrel.inspect("counter")
    assert (found["state"], found["exit_code"], found["reason"]) == ("exited", 9, "Error")
    counted(kestrel, "counter", 100)
    kestrel("rm", "counter")
    wait_until(lambda: set(kestrel.processes()) == kestrel.idle())


def test_one_with_rm_that_ended_while_no_daemon_ran_is_removed(kestrel: Instance) -> None:
    kestrel("run", "-d", "--rm", "--name", "short", "box", "sleep", "0.4")
    pid = kestrel.inspect("short")["pid"]
    kestrel.kill_daemon()
    wait_until(lambda: not alive(pid))
    wait_until(lambda: not kestrel("ps", "-a", "-q").out)


def test_an_adopted_container_is_as_before_in_every_way(kestrel: Instance) -> None:
    script = "echo up; trap 'exit 12' TERM; while :; do sleep 0.05; done"
    kestrel("run", "-d", "--name", "web", "-p", "80", "box", "sh", "-c", script)
    before = kestrel.inspect("web")
    for end in (kestrel.kill_daemon, lambda: kestrel("down")):
        end()
        assert alive(before["pid"])
        assert kestrel.inspect("web") == before
        assert kestrel("exec", "web", "echo", "in").out == "in\n"
        assert kestrel("run", "--rm", "box", "nslookup", "web", timeout=20).out.count(before["sandbox"]["address"]) == 1
    kestrel("stop", "web")
    assert kestrel.inspect("web")["exit_code"] == 12
    kestrel("start", "web")
    assert kestrel.inspect("web")["state"] == "running"


def test_the_exit_code_comes_from_after_an_adoption_too(kestrel: Instance) -> None:
    kestrel("run", "-d", "--name", "oom", "-m", "24m", "box", "sh", "-c", "sleep 0.7; exec tail /dev/zero")
    kestrel.kill_daemon()
    assert kestrel("wait", "oom").out == "137\n"
    assert kestrel.inspect("oom")["reason"] == "OOMKilled"


def test_an_attached_command_says_that_the_container_goes_on(kestrel: Instance) -> None:
    with kestrel.start("run", "--name", "held", "box", "sh", "-c", "echo up; sleep 60") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        kestrel.kill_daemon()
        assert process.wait(15) not in (0, None)
        assert b"the container goes on" in process.stderr.read()
    assert kestrel.inspect("held")["state"] == "running"


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("create and start", ("run", "-d", "box", "sleep", "60")),
        ("run to its end", ("run", "--rm", "box", "echo", "x")),
        ("build", ("build", "-q", "--no-cache", "-t", "built", "CONTEXT")),
        ("stop", ("stop", "-t", "0", "victim")),
        ("remove", ("rm", "-f", "victim")),
        ("push", ("push", "-q", "REGISTRY/box:1")),
        ("pull", ("pull", "-q", "REGISTRY/box:1")),
    ],
)
def test_killed_in_the_middle_it_comes_back_consistent_and_leaks_nothing(
    kestrel: Instance, what: str, arguments: tuple[str, ...]
) -> None:
    context = kestrel.base / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM box\nRUN echo one > /one\nRUN sleep 0.05; echo two > /two\n")
    name = f"{kestrel.registry}/box:1"
    words = [a.replace("REGISTRY/box:1", name).replace("CONTEXT", str(context)) for a in arguments]
    kestrel("tag", "box", name)
    if what == "pull":
        kestrel("push", "-q", name)
    for delay in (0.0, 0.02, 0.05, 0.1):
        kestrel("run", "-d", "--name", "victim", "box", "sleep", "60")
        if what == "pull":
            kestrel("rmi", name)
        daemon = kestrel.daemon()
        with kestrel.start(*words) as process:
            time.sleep(0.03 + delay)
            kill(daemon)
            out, err = process.communicate(timeout=60)
        kestrel("up")
        if process.returncode == 0:
            acknowledged(kestrel, what, name, out.decode().strip())
        else:
            assert b"error:" in err
        # What it did not finish can be done now.
        if what in ("build", "push", "pull"):
            kestrel(*words)
        everything = kestrel("ps", "-a", "-q").out.split()
        kestrel("rm", "-f", *everything) if everything else None
        clean(kestrel)
    assert kestrel("run", "--rm", "box", "echo", "fine").out == "fine\n"


def acknowledged(kestrel: Instance, what: str, name: str, said: str) -> None:
    """Check that what was answered with success is so."""
    match what:
        case "create and start":
            assert kestrel.inspect(said)["state"] == "running"
        case "build":
            assert kestrel("run", "--rm", said, "cat", "/two").out == "two\n"
        case "stop":
            assert kestrel.inspect("victim")["state"] == "exited"
        case "remove":
            kestrel("inspect", "victim", code=1)
        case "push":
            kestrel("pull", name)
        case "pull":
            assert kestrel("run", "--rm", name, "echo", "x").out == "x\n"


def clean(kestrel: Instance) -> None:
    """Check that without containers there is nothing but the daemon and its zygote."""
    wait_until(lambda: set(kestrel.processes()) == kestrel.idle(), timeout=5)
    leaves = [path for path in kestrel.cgroups() if path.rpartition("/")[2] not in (kestrel.name, "pods", "build")]
    assert leaves == []
    assert [link for link in kestrel.links() if link != f"{kestrel.name}0"] == []
    sandboxes = kestrel.run_directory / "sandboxes"
    assert not sandboxes.exists() or list(sandboxes.iterdir()) == []
    snapshots = kestrel.root / "snapshots"
    assert [s.name for s in snapshots.iterdir() if s.is_dir() and len(s.name) == 64] == []


def test_killed_again_and_again_under_load_nothing_is_lost(kestrel: Instance) -> None:
    names = [f"c{n}" for n in range(4)]
    for name in names:
        kestrel("run", "-d", "--name", name, "box", "sh", "-c", COUNT.format(last=5000))
    end = time.monotonic() + 5
    while time.monotonic() < end:
        kestrel("up")
        time.sleep(random.uniform(0, 0.1))
        kestrel.kill_daemon()
    for name in names:
        assert kestrel("wait", name).out == "9\n"
        counted(kestrel, name, 5000)


def test_two_commands_at_once_start_one_daemon(kestrel: Instance) -> None:
    kestrel("down")
    with ExitStack() as stack:
        commands = [stack.enter_context(kestrel.start("run", "--rm", "box", "echo", "x")) for _ in range(4)]
        for command in commands:
            out, err = command.communicate(timeout=60)
            assert (out, err, command.returncode) == (b"x\n", b"", 0)


def test_a_daemon_that_is_asked_to_end_by_a_signal_lets_containers_go_on(kestrel: Instance) -> None:
    kestrel("run", "-d", "--name", "stays", "box", "sleep", "60")
    daemon = kestrel.daemon()
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: not alive(daemon))
    assert kestrel("status", code=3).out.startswith("kestrel is not running")
    assert kestrel.inspect("stays")["state"] == "running"
