"""`kestrel-runtime` used as podman, containerd and docker use runc: as a program, by its words and exit codes."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from kestrel.testing import broken

pytestmark = pytest.mark.root


def test_a_container_goes_through_its_life(runtime: Any) -> None:
    pid_file = runtime.home / "pid"
    runtime.ok("create", "--bundle", str(runtime.bundle), "--pid-file", str(pid_file), "one")
    created = runtime.state("one")
    assert created["status"] == "created"
    assert int(pid_file.read_text()) == created["pid"]
    assert created["bundle"] == str(runtime.bundle)
    runtime.ok("start", "one")
    assert runtime.state("one")["status"] == "running"
    assert Path(f"/proc/{created['pid']}/cmdline").read_bytes() == b"sleep\x0060\x00"
    runtime.ok("kill", "one", "KILL")
    assert runtime.until("one", "stopped")["pid"] == 0
    runtime.ok("delete", "one")
    assert "container does not exist" in runtime("state", "one").stderr
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{runtime.cgroup}"))
    assert not (runtime.home / "state/one").exists()


def test_run_returns_what_the_program_returns_and_leaves_nothing(runtime: Any) -> None:
    runtime.spec("sh", "-c", "echo to out; echo to err >&2; exit 7")
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert (done.returncode, done.stdout, done.stderr) == (7, "to out\n", "to err\n")
    assert json.loads(runtime.ok("list", "--format", "json")) == []
    runtime.spec("sh", "-c", "kill -9 $$")
    runtime.spec("sh", "-c", "sleep 0.01 & kill -TERM $!; wait $!; exit $?")
    assert runtime("run", "--bundle", str(runtime.bundle), "one").returncode == 143


@pytest.mark.parametrize(("program", "code", "words"), broken.CANNOT_RUN)
def test_a_program_that_cannot_run_says_why(runtime: Any, program: str, code: int, words: tuple[str, ...]) -> None:
    broken.make(runtime.bundle / "rootfs")
    runtime.spec(program)
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert done.returncode != 0, code
    assert all(word in done.stderr for word in words), done.stderr
    assert not (runtime.home / "state/one").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("state", "none"), "container does not exist"),
        (("start", "none"), "container does not exist"),
        (("kill", "none", "TERM"), "container does not exist"),
        (("delete", "none"), "container does not exist"),
        (("exec", "none", "true"), "container does not exist"),
        (("state", "../../etc"), "invalid container ID format"),
        (("state", ""), "container id cannot be empty"),
        (("state",), '"state" requires exactly 1 argument(s)'),
        (("state", "a", "b"), '"state" requires exactly 1 argument(s)'),
        (("run", "a", "--detach"), '"run" requires exactly 1 argument(s)'),
        (("list", "a"), '"list" requires exactly 0 argument(s)'),
        (("kill", "a", "9", "b"), '"kill" requires a maximum of 2 argument(s)'),
        (("exec",), '"exec" requires a minimum of 1 argument(s)'),
        (("frobnicate",), "No help topic for 'frobnicate'"),
        (("--log-format", "xml", "list"), "invalid log-format: xml"),
        (("--log", "/absent/log", "list"), "/absent/log: No such file or directory"),
        (("state", "--colour", "none"), "flag provided but not defined: -colour"),
        (("--systemd-cgroup", "list"), "systemd cgroup driver is not supported"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(runtime: Any, words: tuple[str, ...], sentence: str) -> None:
    done = runtime(*words)
    assert done.returncode != 0
    assert sentence in done.stderr.replace('\\"', '"')


def test_errors_reach_the_callers_log_as_json(runtime: Any) -> None:
    log = runtime.home / "log.json"
    runtime("--log", str(log), "--log-format", "json", "state", "none")
    record = json.loads(log.read_text())
    assert (record["level"], record["msg"]) == ("error", "container does not exist: none")
    assert record["time"].endswith("Z")


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("nowhere", 'exec: "nowhere": executable file not found in $PATH'),
        ("/bin/nowhere", 'exec: "/bin/nowhere": no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_run_is_named(runtime: Any, program: str, sentence: str) -> None:
    runtime.spec(program)
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 1
    assert sentence in done.stderr.replace('\\"', '"')
    assert json.loads(runtime.ok("list", "--format", "json")) == []


def test_an_id_is_taken_once(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert "container with given ID already exists: one" in runtime("create", "-b", str(runtime.bundle), "one").stderr
    assert runtime.state("one")["status"] == "running"


def test_operations_out_of_order_are_refused(runtime: Any) -> None:
    runtime.ok("create", "--bundle", str(runtime.bundle), "one")
    runtime.ok("exec", "one", "true")  # it has a first process already
    runtime.ok("start", "one")
    assert "cannot start an already running container" in runtime("start", "one").stderr
    assert "that is not stopped: running" in runtime("delete", "one").stderr
    assert "container not paused" in runtime("resume", "one").stderr
    runtime.ok("kill", "one", "9")
    runtime.until("one", "stopped")
    assert "container not running" in runtime("kill", "one", "TERM").stderr
    assert "cannot exec in a stopped container" in runtime("exec", "one", "true").stderr
    assert "cannot start a container that has stopped" in runtime("start", "one").stderr


def test_a_created_container_that_is_paused_is_neither_started_nor_joined(runtime: Any) -> None:
    runtime.ok("create", "--bundle", str(runtime.bundle), "one")
    runtime.ok("pause", "one")
    assert runtime.state("one")["status"] == "paused"
    assert "cannot start a container in the paused state" in runtime("start", "one").stderr
    assert "cannot exec in a paused container" in runtime("exec", "one", "true").stderr
    runtime.ok("resume", "one")
    assert runtime.state("one")["status"] == "created"
    runtime.ok("start", "one")


def test_a_created_container_can_be_asked_to_end(runtime: Any) -> None:
    runtime.ok("create", "--bundle", str(runtime.bundle), "one")
    runtime.ok("kill", "one", "TERM")
    runtime.until("one", "stopped")
    runtime.ok("delete", "one")


def test_exec_joins_with_the_containers_user_unless_told_otherwise(runtime: Any) -> None:
    runtime.spec("sleep", "60", process={"user": {"uid": 1000, "gid": 1000}})
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert runtime.ok("exec", "one", "id", "-u") == "1000\n"
    words = ("exec", "-u", "5:6", "-e", "A=b", "--cwd", "/tmp", "one", "sh", "-c", "id -u; id -g; echo $A; pwd")
    assert runtime.ok(*words) == "5\n6\nb\n/tmp\n"
    assert runtime("exec", "one", "sh", "-c", "exit 9").returncode == 9
    done = runtime("exec", "one", "nowhere")
    assert done.returncode == 255
    assert "executable file not found in $PATH" in done.stderr
    process = runtime.home / "process.json"
    process.write_text(json.dumps({"args": ["id", "-u"], "cwd": "/", "user": {"uid": 8}, "env": ["PATH=/bin"]}))
    assert runtime.ok("exec", "--process", str(process), "one") == "8\n"
    process.write_text(json.dumps({"args": ["true"], "cwd": "/", "consoleSize": {"height": 40}}))
    assert "consoleSize has no width" in runtime("exec", "--process", str(process), "one").stderr


def test_the_terminal_of_an_exec_is_as_large_as_the_config_says(runtime: Any) -> None:
    runtime.spec("sleep", "60", process={"consoleSize": {"height": 40, "width": 90}})
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    assert "40 90" in runtime.ok("exec", "-t", "one", "stty", "size")


def test_a_detached_exec_goes_on_without_its_command(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    pid_file = runtime.home / "exec.pid"
    runtime.ok("exec", "-d", "--pid-file", str(pid_file), "one", "sleep", "50")
    pid = int(pid_file.read_text())
    assert pid in json.loads(runtime.ok("ps", "--format", "json", "one"))
    assert "sleep 50" in runtime.ok("ps", "one")
    done = runtime("ps", "one", "-o")
    assert (done.returncode, "ps: format specification must follow -o" in done.stderr) == (1, True)
    runtime.ok("kill", "--all", "one", "KILL")
    runtime.until("one", "stopped")


@pytest.mark.parametrize("option", ["--pid-file", "--pidfd-socket"])
def test_an_exec_that_cannot_be_handed_over_leaves_no_process(runtime: Any, option: str) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    done = runtime("exec", "-d", option, "/absent/name", "one", "sleep", "50")
    assert (done.returncode, "/absent" in done.stderr) == (255, True)
    assert json.loads(runtime.ok("ps", "--format", "json", "one")) == [runtime.state("one")["pid"]]


def test_the_terminal_goes_to_the_console_socket(runtime: Any) -> None:
    runtime.spec("sh", "-c", "tty; read word; echo got $word", process={"terminal": True})
    done = runtime("create", "--bundle", str(runtime.bundle), "one")
    assert "cannot allocate tty" in done.stderr
    path = str(runtime.home / "console.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "--console-socket", path, "one")
        connection, _ = listener.accept()
        with connection:
            name, descriptors, _, _ = socket.recv_fds(connection, 64, 4)
    assert (name, len(descriptors)) == (b"/dev/ptmx", 1)
    with open(descriptors[0], "r+b", buffering=0) as master:
        master.write(b"hello\n")
        said = b""
        while b"got hello" not in said:
            said += master.read(1024)
        assert b"/dev/pts/0" in said


def test_pause_resume_update_and_events(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    runtime.ok("pause", "one")
    assert runtime.state("one")["status"] == "paused"
    assert "cannot exec in a paused container" in runtime("exec", "one", "true").stderr
    runtime.ok("resume", "one")
    assert runtime.state("one")["status"] == "running"
    runtime.ok("update", "--resources", "-", "one", stdin=json.dumps({"pids": {"limit": 40}}))
    runtime.ok("update", "--memory", "64m", "--pids-limit", "41", "one")
    done = runtime("update", "--kernel-memory", "5m", "one")
    assert (done.returncode, "kernel memory are ignored" in done.stderr) == (0, True)
    stats = json.loads(runtime.ok("events", "--stats", "one"))
    assert stats["data"]["pids"]["current"] == 1
    assert stats["data"]["memory"]["usage"]["limit"] == 64 << 20
    limit = [
        *Path("/sys/fs/cgroup").glob(f"pids/{runtime.cgroup}/pids.max"),
        Path(f"/sys/fs/cgroup/{runtime.cgroup}/pids.max"),
    ]
    assert limit[0].read_text() == "41\n"


def test_hooks_run_in_order_with_the_state_and_nothing_of_the_environment(runtime: Any) -> None:
    trace = runtime.home / "trace"
    script = runtime.home / "hook"
    script.write_text(f"#!/bin/sh\n(cat; echo; echo $1 env $(env | grep -v -e PWD -e _= -e SHLVL)) >>{trace}\n")
    script.chmod(0o755)
    inside = {"path": "/bin/sh", "args": ["sh", "-c", "cat >/hooked"]}
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hooks = {kind: [{"path": str(script), "args": ["hook", kind], "env": [f"K={kind}"]}] for kind in kinds}
    runtime.spec("sh", "-c", "cat /hooked; sleep 60", hooks={**hooks, "startContainer": [inside]})
    done = runtime("create", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 0, done.stderr
    pid = runtime.state("one")["pid"]
    runtime.ok("start", "one")
    runtime.ok("delete", "--force", "one")
    lines = trace.read_text().splitlines()
    assert [line for line in lines if line[0] != "{"] == [f"{kind} env K={kind}" for kind in kinds]
    states = [json.loads(line) for line in lines if line[0] == "{"]
    assert [s["status"] for s in states] == ["creating", "creating", "creating", "running", "stopped"]
    assert [s.get("pid") for s in states] == [pid, pid, 1, pid, None]
    assert json.loads((runtime.bundle / "rootfs/hooked").read_text())["status"] == "created"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_takes_the_container_with_it(runtime: Any, kind: str) -> None:
    gone = runtime.home / "gone"
    hooks = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 3"]}],
        "poststop": [{"path": "/bin/touch", "args": ["touch", str(gone)]}],
    }
    runtime.spec("sleep", "60", hooks=hooks)
    done = runtime("create", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 1
    assert f"error running {kind} hook #0: /bin/sh: exit status 3, it said: no luck" in done.stderr
    assert json.loads(runtime.ok("list", "--format", "json")) == []
    assert gone.exists()


def test_a_hook_that_does_not_end_is_ended(runtime: Any) -> None:
    runtime.spec("sleep", "60", hooks={"prestart": [{"path": "/bin/sleep", "args": ["sleep", "50"], "timeout": 1}]})
    began = time.monotonic()
    assert "did not end within 1 seconds" in runtime("create", "-b", str(runtime.bundle), "one").stderr
    assert time.monotonic() - began < 10


def test_a_container_that_is_being_created_is_deleted_by_force_alone_and_ends_once(runtime: Any) -> None:
    trace, busy = runtime.home / "trace", runtime.home / "busy"
    hooks = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"touch {busy}; exec sleep 2"]}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo ended >>{trace}"]}],
    }
    runtime.spec("sleep", "60", hooks=hooks)
    words = [*runtime.line, "--root", str(runtime.home / "state"), "create", "--bundle", str(runtime.bundle), "one"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as creation:
        due = time.monotonic() + 10
        while not busy.exists() and time.monotonic() < due:
            time.sleep(0.01)
        assert "cannot delete container one that is not stopped: creating" in runtime("delete", "one").stderr
        runtime.ok("delete", "--force", "one")
        assert creation.wait(10) == 1
    assert trace.read_text() == "ended\n"
    assert json.loads(runtime.ok("list", "--format", "json")) == []


def _with_cgroups(runtime: Any, option: str, program: str) -> None:
    """Write a config whose container sees its own groups."""
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [option]}
    runtime.spec("sh", "-c", program)
    spec = json.loads((runtime.bundle / "config.json").read_text())
    mounts = [each for each in spec["mounts"] if each["destination"] != mount["destination"]]
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    (runtime.bundle / "config.json").write_text(json.dumps({**spec, "mounts": [*mounts, mount]}))


@pytest.mark.skipif(not Path("/sys/fs/cgroup/freezer").exists(), reason="this machine has version 2 of control groups")
def test_every_hierarchy_of_version_1_is_mounted_those_without_controllers_too(runtime: Any) -> None:
    _with_cgroups(runtime, "ro", "cd /sys/fs/cgroup; ls; ls -d */cgroup.procs | wc -l")
    names = [line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    wanted = sorted(name.removeprefix("name=") for name in names if name)
    *seen, count = runtime.ok("run", "--bundle", str(runtime.bundle), "one").split()
    assert (seen, int(count)) == (wanted, len(wanted))


@pytest.mark.skipif(not Path("/sys/fs/cgroup/freezer").exists(), reason="version 2 kills what is frozen")
def test_a_container_that_froze_its_own_processes_can_be_deleted(runtime: Any) -> None:
    freeze = "cd /sys/fs/cgroup/freezer; mkdir f; sleep 60 & echo $! >f/cgroup.procs; echo FROZEN >f/freezer.state"
    _with_cgroups(runtime, "rw", f"{freeze}; sleep 60")
    runtime.ok("run", "--detach", "--bundle", str(runtime.bundle), "one")
    state = Path(f"/sys/fs/cgroup/freezer/{runtime.cgroup}/f/freezer.state")
    due = time.monotonic() + 10
    while not (state.exists() and state.read_text() == "FROZEN\n") and time.monotonic() < due:
        time.sleep(0.01)
    assert state.read_text() == "FROZEN\n"
    runtime.ok("delete", "--force", "one")
    assert not state.parent.parent.exists()


@pytest.mark.parametrize(
    ("linux", "sentence"),
    [
        ({"cgroupsPath": "/"}, "linux.cgroupsPath '/' is the root of all control groups: name one below it"),
        ({"resources": {"memory": {"limit": 4096}}}, "the memory limit is too low to start the container"),
        ({"resources": {"blockIO": {"weightDevice": [{"weight": 5}]}}}, "'major' is missing"),
        ({"resources": {"blockIO": {"leafWeight": 500}}}, "linux.resources.blockIO.leafWeight cannot be had"),
    ],
)
def test_limits_that_cannot_be_are_named(runtime: Any, linux: dict[str, Any], sentence: str) -> None:
    runtime.spec("true", linux=linux)
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert json.loads(runtime.ok("list", "--format", "json")) == []


def test_a_limit_below_what_is_in_use_is_refused_if_that_is_asked_for(runtime: Any) -> None:
    runtime.ok("run", "--detach", "--bundle", str(runtime.bundle), "one")
    asked = json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}})
    done = runtime("update", "--resources", "-", "one", stdin=asked)
    assert done.returncode == 1
    assert "the memory limit 4096 is below the" in done.stderr


def test_the_interpreter_cannot_be_written_to_from_a_container(runtime: Any) -> None:
    runtime.ok("create", "--bundle", str(runtime.bundle), "one")
    pid = runtime.state("one")["pid"]
    with pytest.raises(OSError, match="Read-only file system"):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)


def test_a_process_that_took_the_number_is_not_the_container(runtime: Any) -> None:
    runtime.ok("run", "-d", "--bundle", str(runtime.bundle), "one")
    path = runtime.home / "state/one/state.json"
    record = json.loads(path.read_text())
    os.kill(record["pid"], signal.SIGKILL)
    runtime.until("one", "stopped")
    path.write_text(json.dumps({**record, "pid": os.getpid()}))
    assert runtime.state("one")["status"] == "stopped"
    assert "container not running" in runtime("kill", "one", "KILL").stderr


def test_descriptors_are_preserved_on_request_only(runtime: Any) -> None:
    runtime.spec("ls", "/proc/self/fd")
    base = [*runtime.line, "--root", str(runtime.home / "state"), "run"]
    script = f'exec 3</dev/null 4</dev/null; exec "$@" --preserve-fds 1 -b {runtime.bundle} one'
    done = subprocess.run(["sh", "-c", script, "sh", *base], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["0", "1", "2", "3", "4"], done.stderr  # 4 is what ls reads the directory with


def test_a_time_namespace_has_its_offsets(runtime: Any) -> None:
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    spec = json.loads((runtime.bundle / "config.json").read_text())
    kinds = [*spec["linux"]["namespaces"], {"type": "time"}]
    runtime.spec("cat", "/proc/uptime", linux={"namespaces": kinds, "timeOffsets": {"boottime": {"secs": 10**7}}})
    done = runtime("run", "-b", str(runtime.bundle), "one")
    assert float(done.stdout.split()[0]) > 10**7


def test_features_are_a_document_that_callers_can_read(runtime: Any) -> None:
    found = json.loads(runtime.ok("features"))
    assert found["hooks"] == ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    assert {"rro", "rbind", "tmpcopyup"} <= set(found["mountOptions"])
    assert found["linux"]["cgroup"]["v1"]
    assert {"mount", "time", "user"} <= set(found["linux"]["namespaces"])
    assert found["ociVersionMax"] == "1.3.0"
