"""ps, logs, exec, start, stop, kill, wait, rm, inspect: what they print, where, and how they end."""

import re
import time
from contextlib import ExitStack

import pytest

from kestrel.testing.instance import Instance, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def sleeper(platform: Instance) -> str:
    platform("run", "-d", "--name", "sleeper", "-e", "A=b", "-l", "k=v", "box", "sleep", "60")
    return "sleeper"


def test_ps_shows_running_ones_and_with_a_all(platform: Instance, sleeper: str) -> None:
    platform("run", "--name", "ended", "box", "sh", "-c", "exit 4", code=4)
    lines = platform("ps").out.splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert len(lines) == 2
    assert re.search(r'box +"sleep 60" .* Up .* sleeper$', lines[1])
    assert re.search(r"Exited \(4\) .* ended$", platform("ps", "-a").out, re.MULTILINE)
    assert platform("ps", "-q").out.strip() == platform.inspect(sleeper)["id"][:12]


def test_ps_as_json_has_everything(platform: Instance, sleeper: str) -> None:
    found = platform("ps", "--json").json()[0]
    assert found["labels"] == {"k": "v"}
    assert (found["state"], found["name"], found["image"]) == ("running", "sleeper", "box")
    assert found["address"].count(".") == 3


def test_a_container_is_found_by_prefix_of_its_id(platform: Instance, sleeper: str) -> None:
    identity = platform.inspect(sleeper)["id"]
    assert platform.inspect(identity[:5])["id"] == identity


def test_logs_tail_timestamps_and_since(platform: Instance) -> None:
    script = "echo one; echo two >&2; sleep 1.2; echo three; printf four"
    platform("run", "--name", "talker", "box", "sh", "-c", script)
    assert platform("logs", "talker").out == "one\nthree\nfour"
    assert platform("logs", "-n", "2", "talker").out == "three\nfour"
    assert platform("logs", "-n", "0", "talker").out == ""
    assert platform("logs", "--since", "1s", "talker").err == ""
    stamped = platform("logs", "-t", "talker").out.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z one", stamped[0])


def test_logs_follow_to_the_end_of_the_container(platform: Instance) -> None:
    platform("run", "-d", "--name", "talker", "box", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    assert platform("logs", "-f", "talker", timeout=20).out == "1\n2\n3\n4\n5\n"


def test_logs_of_a_running_container_do_not_wait(platform: Instance, sleeper: str) -> None:
    assert platform("logs", sleeper, timeout=5).out == ""


def test_exec_has_the_containers_environment_and_its_own(platform: Instance, sleeper: str) -> None:
    answer = platform(
        "exec", "-e", "C=d", "-w", "/tmp", "-u", "alice", sleeper, "sh", "-c", "echo $A $C $PWD $(id -un)"
    )
    assert answer.out == "b d /tmp alice\n"


def test_exec_carries_input_exit_code_and_both_streams(platform: Instance, sleeper: str) -> None:
    answer = platform("exec", "-i", sleeper, "sh", "-c", "cat; echo err >&2; exit 6", stdin="in\n", code=6)
    assert (answer.out, answer.err) == ("in\n", "err\n")


def test_exec_sees_the_containers_processes(platform: Instance, sleeper: str) -> None:
    assert "1 root" in platform("exec", sleeper, "ps").out.replace("  ", " ")


def test_exec_detached_goes_on_by_itself(platform: Instance, sleeper: str) -> None:
    platform("exec", "-d", sleeper, "sh", "-c", "sleep 0.3; echo made > /made")
    wait_until(lambda: platform("exec", sleeper, "cat", "/made", code=None).out == "made\n")


@pytest.mark.parametrize(("command", "code"), [("/absent", 127), ("/etc/passwd", 126), ("absent", 127)])
def test_exec_of_what_cannot_run_ends_as_dockers(platform: Instance, sleeper: str, command: str, code: int) -> None:
    answer = platform("exec", sleeper, command, code=code)
    assert command in answer.err
    assert answer.out == ""


def test_exec_in_an_ended_container_says_how_to_start_it(platform: Instance) -> None:
    platform("run", "--name", "ended", "box", "true")
    answer = platform("exec", "ended", "true", code=1)
    assert "not running" in answer.err
    assert "kestrel start ended" in answer.err


def test_an_ended_container_starts_again_with_its_files(platform: Instance) -> None:
    script = "echo run >> /count; cat /count | wc -l"
    platform("run", "--name", "again", "box", "sh", "-c", script)
    assert platform("start", "again").out == "again\n"
    platform("wait", "again")
    assert platform("logs", "again").out.split() == ["1", "2"]


def test_start_of_a_running_container_is_refused(platform: Instance, sleeper: str) -> None:
    assert "running already" in platform("start", sleeper, code=1).err


def test_stop_asks_first_and_the_exit_code_is_the_processes(platform: Instance) -> None:
    platform("run", "-d", "--name", "polite", "box", "sh", "-c", "trap 'exit 11' TERM; while :; do sleep 0.05; done")
    began = time.monotonic()
    assert platform("stop", "polite").out == "polite\n"
    assert time.monotonic() - began < 5
    assert platform.inspect("polite")["exit_code"] == 11


def test_stop_makes_what_does_not_listen_end_after_the_time(platform: Instance) -> None:
    platform("run", "-d", "--name", "deaf", "box", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    began = time.monotonic()
    platform("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - began < 6
    assert platform.inspect("deaf")["exit_code"] == 137


def test_stop_sends_the_signal_that_was_chosen(platform: Instance) -> None:
    script = "trap 'exit 12' USR1; while :; do sleep 0.05; done"
    platform("run", "-d", "--name", "own", "--stop-signal", "USR1", "box", "sh", "-c", script)
    platform("stop", "own")
    assert platform.inspect("own")["exit_code"] == 12


def test_stop_of_several_takes_the_time_of_one_and_twice_is_fine(platform: Instance) -> None:
    names = ["a", "b", "c"]
    for name in names:
        platform("run", "-d", "--name", name, "box", "sleep", "60")
    began = time.monotonic()
    platform("stop", "-t", "1", *names)
    assert time.monotonic() - began < 2.5
    assert platform("stop", *names).out.split() == names


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("SIGINT", 130), ("15", 143)])
def test_kill_sends_a_signal_by_any_of_its_names(platform: Instance, signal: str, code: int) -> None:
    script = "trap 'exit 130' INT; trap 'exit 143' TERM; while :; do sleep 0.05; done"
    platform("run", "-d", "--name", "target", "box", "sh", "-c", script)
    time.sleep(0.1)
    platform("kill", "-s", signal, "target")
    assert platform("wait", "target").out == f"{code}\n"


def test_kill_of_what_is_not_running_or_with_no_such_signal_is_an_error(platform: Instance, sleeper: str) -> None:
    assert "NOPE" in platform("kill", "-s", "NOPE", sleeper, code=2).err
    platform("stop", "-t", "0", sleeper)
    assert "not running" in platform("kill", sleeper, code=1).err


def test_wait_prints_codes_in_the_order_of_the_names(platform: Instance) -> None:
    platform("run", "-d", "--name", "slow", "box", "sh", "-c", "sleep 0.4; exit 1")
    platform("run", "-d", "--name", "fast", "box", "sh", "-c", "exit 2")
    assert platform("wait", "slow", "fast").out == "1\n2\n"


def test_rm_refuses_a_running_container_and_force_ends_it(platform: Instance, sleeper: str) -> None:
    answer = platform("rm", sleeper, code=1)
    assert "is running" in answer.err
    assert "--force" in answer.err
    assert platform("rm", "-f", sleeper).out == "sleeper\n"
    platform("inspect", sleeper, code=1)


def test_a_name_is_free_again_after_rm(platform: Instance) -> None:
    for _ in range(3):
        platform("run", "--name", "same", "box", "true")
        platform("rm", "same")


def test_inspect_shows_configuration_state_and_sandbox(platform: Instance, sleeper: str) -> None:
    found = platform.inspect(sleeper)
    assert found["config"]["args"] == ["sleep", "60"]
    assert found["pid"] > 1
    assert found["sandbox"]["state"] == "ready"
    assert platform.inspect("box")["config"]["config"]["Cmd"] == ["sh"]


def test_many_containers_at_once_all_answer(platform: Instance) -> None:
    with ExitStack() as stack:
        commands = [stack.enter_context(platform.start("run", "--rm", "box", "echo", str(n))) for n in range(12)]
        for number, command in enumerate(commands):
            assert command.communicate(timeout=60)[0] == f"{number}\n".encode()
            assert command.returncode == 0


def test_stop_sends_the_signal_that_the_image_says(platform: Instance) -> None:
    script = "trap 'exit 12' USR2; while :; do sleep 0.05; done"
    platform.build("own-signal", "FROM box\nSTOPSIGNAL SIGUSR2\n")
    platform("run", "-d", "--name", "own", "own-signal", "sh", "-c", script)
    platform("stop", "own")
    assert platform.inspect("own")["exit_code"] == 12
