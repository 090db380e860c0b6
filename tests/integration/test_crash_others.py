"""`kill -9` of a shim, of the zygote, of a container's process, and a machine that loses its run directory."""

import os
import shutil
import signal

import pytest

from kestrel.testing.instance import Instance, alive, kill, wait_until

pytestmark = pytest.mark.root


def test_a_killed_shim_is_reported_and_leaves_nothing(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "-d", "--name", "web", "-p", "80", "box", "sh", "-c", "sleep 100 & sleep 100")
    pids = set(kestrel.processes())
    kill(kestrel.shim("web"))
    assert kestrel("wait", "web", timeout=10).out == "137\n"
    found = kestrel.inspect("web")
    assert (found["state"], found["reason"], found["message"]) == ("exited", "ShimKilled", "the shim was killed")
    assert "ShimKilled" in kestrel("ps", "-a").out
    wait_until(lambda: set(kestrel.processes()) == kestrel.idle())
    assert not any(alive(pid) for pid in pids - kestrel.idle())
    assert kestrel.links() == [f"{kestrel.name}0"]
    assert [path for path in kestrel.cgroups() if path.endswith(found["id"][:12])] == []
    kestrel("start", "web")
    assert kestrel.inspect("web")["state"] == "running"


def test_a_shim_killed_while_no_daemon_runs_is_found_out(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "-d", "--name", "web", "box", "sleep", "100")
    shim = kestrel.shim("web")
    kestrel.kill_daemon()
    kill(shim)
    found = kestrel.inspect("web")
    assert (found["state"], found["exit_code"], found["reason"]) == ("exited", 137, "ShimKilled")
    wait_until(lambda: set(kestrel.processes()) == kestrel.idle())
    assert kestrel.links() == [f"{kestrel.name}0"]


def test_an_attached_command_ends_when_its_shim_is_killed(own_platform: Instance) -> None:
    with own_platform.start("run", "--name", "held", "box", "sh", "-c", "echo up; sleep 100") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        kill(own_platform.shim("held"))
        assert process.wait(15) == 137


def test_the_platform_goes_on_without_its_zygote(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "-d", "--name", "before", "box", "sleep", "100")
    kill(kestrel.zygote())
    assert kestrel("run", "--rm", "box", "echo", "new").out == "new\n"
    assert kestrel("exec", "before", "echo", "old").out == "old\n"


def test_a_killed_process_is_a_plain_137(own_platform: Instance) -> None:
    own_platform("run", "-d", "--name", "web", "box", "sleep", "100")
    os.kill(own_platform.inspect("web")["pid"], signal.SIGKILL)
    assert own_platform("wait", "web").out == "137\n"
    assert own_platform.inspect("web")["reason"] == "Error"


def test_after_a_reboot_nothing_runs_and_everything_can_be_started(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "-d", "--name", "web", "-v", "kept:/v", "box", "sh", "-c", "echo x >> /v/f; sleep 100")
    wait_until(lambda: kestrel("exec", "web", "cat", "/v/f", code=None).out)
    kestrel.kill_daemon()  # then everything else, and the run directory, as a reboot would
    for pid in kestrel.processes():
        kill(pid)
    shutil.rmtree(kestrel.run_directory)
    found = kestrel.inspect("web")
    assert found["state"] == "exited"
    assert kestrel("ps", "-q").out == ""
    kestrel("start", "web")
    wait_until(lambda: kestrel("exec", "web", "cat", "/v/f").out == "x\nx\n")


def test_down_without_all_and_up_again_keeps_containers_and_their_records(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "-d", "--name", "web", "box", "sleep", "100")
    kestrel("run", "--name", "ended", "box", "sh", "-c", "exit 5", code=5)
    pid = kestrel.inspect("web")["pid"]
    kestrel("down")
    assert alive(pid)
    kestrel("up")
    assert kestrel.inspect("web")["pid"] == pid
    assert kestrel.inspect("ended")["exit_code"] == 5


def test_down_all_ends_everything_keeps_data_and_says_so_of_the_containers(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "-d", "--name", "web", "-p", "80", "box", "sleep", "100")
    kestrel("down", "--all")
    assert kestrel.traces() == []
    assert kestrel("status", code=3)
    kestrel("up")
    assert kestrel.inspect("web")["state"] == "exited"
    kestrel("start", "web")
    assert kestrel.inspect("web")["state"] == "running"


def test_down_all_cleans_up_after_a_killed_daemon_and_twice_is_fine(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "-d", "box", "sleep", "100")
    kestrel.kill_daemon()
    kestrel("down", "--all")
    assert kestrel.traces() == []
    kestrel("down", "--all")
    assert kestrel.traces() == []
