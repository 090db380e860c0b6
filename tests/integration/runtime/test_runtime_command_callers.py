"""`kestrel-runtime` where callers of runc lean on more than the life of a container: groups, names, agents, records."""

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kestrel.linux import cgroups

pytestmark = pytest.mark.root


def test_a_group_that_others_use_is_not_taken(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert "container's cgroup is not empty" in runtime("create", "--bundle", str(runtime.bundle), "two").stderr
    assert runtime.ok("exec", "one", "true") == ""


def test_what_is_left_without_a_pid_namespace_is_killed_when_its_first_process_has_ended(runtime: Any) -> None:
    runtime.spec("sh", "-c", "sleep 600 & exit 0")
    config = json.loads((runtime.bundle / "config.json").read_text())
    config["linux"]["namespaces"] = [kind for kind in config["linux"]["namespaces"] if kind["type"] != "pid"]
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    runtime.until("one", "stopped")
    assert len(json.loads(runtime.ok("ps", "--format", "json", "one"))) == 1
    runtime.ok("kill", "one", "KILL")
    while json.loads(runtime.ok("ps", "--format", "json", "one")):
        time.sleep(0.01)


def test_a_process_joins_groups_below_the_containers(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert "bad sub cgroup path" in runtime("exec", "--cgroup", "../x", "one", "true").stderr
    assert "adding pid" in runtime("exec", "--cgroup", "absent", "one", "true").stderr
    assert "unknown controller" in runtime("exec", "--cgroup", "colour:/", "one", "true").stderr
    top = Path(f"/sys/fs/cgroup/memory/{runtime.cgroup}")
    if not top.exists():
        pytest.skip("the control groups here are version 2")
    (top / "below").mkdir()
    groups = runtime.ok("exec", "--cgroup", "memory:below", "one", "cat", "/proc/self/cgroup")
    assert f":memory:/{runtime.cgroup}/below\n" in groups
    assert f":pids:/{runtime.cgroup}\n" in groups


def test_processes_are_born_in_version_2s_group_where_it_is_mounted_beside_version_1(runtime: Any) -> None:
    """To be moved there they would wait for a grace period of the kernel."""
    if not Path("/sys/fs/cgroup/unified").exists():
        pytest.skip("the control groups here are not hybrid")
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert f"0::/{runtime.cgroup}\n" in runtime.ok("exec", "one", "sh", "-c", "cat /proc/1/cgroup")
    assert f"0::/{runtime.cgroup}\n" in runtime.ok("exec", "one", "sh", "-c", "cat /proc/self/cgroup")
    joiners = cgroups.detect().group(runtime.cgroup).joiners()
    try:
        assert {os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) for fd in joiners} == {"tasks"}
    finally:
        for fd in joiners:
            os.close(fd)


def test_home_is_the_users_when_nobody_set_it(runtime: Any) -> None:
    with (runtime.bundle / "rootfs/etc/passwd").open("a") as file:
        file.write("tester:x:2000:2000::/home/tester:/bin/sh\n")
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert runtime.ok("exec", "-u", "2000", "one", "sh", "-c", "echo $HOME") == "/home/tester\n"
    assert runtime.ok("exec", "-u", "2001", "one", "sh", "-c", "echo $HOME") == "/\n"
    assert runtime.ok("exec", "-u", "2000", "-e", "HOME=/x", "one", "sh", "-c", "echo $HOME") == "/x\n"


def test_debug_tells_the_plan_and_a_log_takes_everything_but_errors(runtime: Any) -> None:
    log = runtime.home / "log"
    runtime.spec("true")
    done = runtime("--debug", "--log", str(log), "--log-format", "json", "run", "--bundle", str(runtime.bundle), "one")
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"debug"} == {record["level"] for record in records}
    assert "enter the root" in [record["msg"] for record in records]


def test_a_container_joins_the_user_namespace_of_another(runtime: Any) -> None:
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    kinds = [{"type": kind} for kind in ("mount", "pid", "uts", "user")]
    runtime.spec("sleep", "60", linux={"namespaces": kinds, "uidMappings": ids, "gidMappings": ids})
    for path in (runtime.bundle, *runtime.bundle.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    pid = runtime.state("one")["pid"]
    joined = [*kinds[:-1], {"type": "user", "path": f"/proc/{pid}/ns/user"}]
    runtime.cgroup += "-two"
    runtime.spec("sleep", "60", linux={"namespaces": joined})
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "two")
    other = runtime.state("two")["pid"]
    assert os.readlink(f"/proc/{other}/ns/user") == os.readlink(f"/proc/{pid}/ns/user")
    assert os.stat(f"/proc/{other}").st_uid == 100000
    assert runtime.ok("exec", "two", "cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]


def test_what_is_no_user_namespace_is_not_joined(runtime: Any) -> None:
    runtime.spec("true", linux={"namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/self/ns/uts"}]})
    assert "cannot be joined" in runtime("run", "--bundle", str(runtime.bundle), "one").stderr


def test_memory_comes_from_the_nodes_that_were_asked_for(runtime: Any) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("this kernel knows no memory nodes")
    runtime.spec("head", "-n1", "/proc/self/numa_maps", linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}})
    assert " bind:0 " in runtime.ok("run", "--bundle", str(runtime.bundle), "one")


class Agent(threading.Thread):
    """A seccomp agent that takes one process, reads what it is told of it, and lets go: its calls then fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.told: dict[str, Any] = {}
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()

    def run(self) -> None:
        connection, _ = self._listening.accept()
        with self._listening, connection:
            data, descriptors, _flags, _address = socket.recv_fds(connection, 65536, 4)
            self.told = {**json.loads(data), "received": [os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors]}
            for fd in descriptors:
                os.close(fd)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_an_agent_is_introduced_to_a_process_whose_profile_leaves_calls_to_it(
    runtime: Any, verb: str, late: bool
) -> None:
    place = runtime.home / "agent"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(place),
        "listenerMetadata": "m",
        "syscalls": rules,
    }
    program = ("sh", "-c", "mkdir /made 2>&1; true")
    runtime.spec(*(program if verb == "run" else ("sleep", "60")), linux={"seccomp": profile})
    config = json.loads((runtime.bundle / "config.json").read_text())
    config["process"]["noNewPrivileges"] = late
    (runtime.bundle / "config.json").write_text(json.dumps(config))
    agent = Agent(place)
    agent.start()
    if verb == "exec":
        runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
        agent.join(10)
        place.unlink()
        agent = Agent(place)
        agent.start()
    words = ("exec", "one", *program) if verb == "exec" else ("run", "--bundle", str(runtime.bundle), "one")
    assert "Function not implemented" in runtime.ok(*words)  # what the kernel says when the agent is gone
    agent.join(10)
    assert agent.told["fds"] == ["seccompFd"]
    assert agent.told["metadata"] == "m"
    assert agent.told["state"]["id"] == "one"
    assert agent.told["received"] == ["anon_inode:seccomp notify"]


def test_without_its_agent_a_container_is_not_started(runtime: Any) -> None:
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent", "syscalls": rules}
    runtime.spec("true", linux={"seccomp": profile})
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert "failed to connect with seccomp agent /no/agent" in done.stderr
    assert "container does not exist" in runtime("state", "one").stderr


def test_a_container_that_waits_to_be_started_holds_nothing_of_the_host(runtime: Any) -> None:
    runtime.ok("create", "--bundle", str(runtime.bundle), "one")
    place = f"/proc/{runtime.state('one')['pid']}/fd"
    held = {int(fd): os.readlink(f"{place}/{fd}") for fd in os.listdir(place)}
    assert [name.partition(":")[0] for fd, name in held.items() if fd > 2] == ["socket"]  # at which it waits


def test_events_tell_that_a_container_ran_out_of_memory_and_end_with_it(runtime: Any) -> None:
    limits = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    runtime.spec("sh", "-c", "sleep 1; x=$(yes | head -c 99999999); sleep 600", linux={"resources": limits})
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    events = [json.loads(line) for line in runtime.ok("events", "--interval", "50ms", "one").splitlines()]
    assert {"type": "oom", "id": "one"} in events
    assert events[0]["data"]["memory"]["usage"]["limit"] == 32 << 20
    assert "is not running" in runtime("events", "one").stderr


def test_without_pivot_no_whole_proc_stays_behind(runtime: Any) -> None:
    """Whoever makes a user namespace may mount a /proc with nothing masked where a whole one is to be found."""
    names = ["CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"]
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), names)
    inside = "mount -t proc none /tmp 2>&1 && echo unmasked"
    runtime.spec("unshare", "-mrpf", "sh", "-c", inside, process={"capabilities": capabilities})
    for words in ((), ("--no-pivot",)):
        done = runtime("run", *words, "--bundle", str(runtime.bundle), "one")
        assert "mount: permission denied" in done.stdout, words


def test_without_a_mount_namespace_nothing_is_left_mounted_on_the_host(runtime: Any) -> None:
    kinds = [{"type": kind} for kind in ("pid", "network", "ipc", "uts")]
    runtime.spec("echo", "hello", linux={"namespaces": kinds, "maskedPaths": [], "readonlyPaths": []})
    assert runtime.ok("run", "--bundle", str(runtime.bundle), "one") == "hello\n"
    assert str(runtime.home) not in Path("/proc/self/mountinfo").read_text()


def test_a_container_runs_in_a_group_whose_parent_has_no_cpus_yet(runtime: Any) -> None:
    pod = Path(f"/sys/fs/cgroup/cpuset/{runtime.cgroup}-pod")
    if not pod.parent.exists():
        pytest.skip("the control groups here are version 2")
    pod.mkdir()
    try:
        runtime.spec("cat", "/proc/self/cgroup", linux={"cgroupsPath": f"/{pod.name}/one"})
        assert f":cpuset:/{pod.name}/one\n" in runtime.ok("run", "--bundle", str(runtime.bundle), "one")
    finally:
        cgroups.remove(pod.name)
