"""podman, containerd and docker with `kestrel-runtime` as their runtime, each with a place of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kestrel.testing.groups import remove_group

pytestmark = [pytest.mark.root, pytest.mark.clients]

SOURCE = Path(__file__).parents[3] / "src"
IMAGE = "localhost/ktest:1"

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def home(layer: Path) -> Iterator[Path]:
    """A directory on the disk, with the command as a program and a root filesystem as a tar."""
    top = Path(tempfile.mkdtemp(prefix="ktest-peers-", dir="/var/tmp"))
    program = top / "kestrel-runtime"
    lines = (
        f"#!{sys.executable} -IS",
        "import sys",
        f"sys.path.append({str(SOURCE)!r})",
        "from kestrel.runtime.main import main",
        "main()",
    )
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    subprocess.run(["tar", "-C", str(layer), "-cf", str(top / "root.tar"), "."], check=True)
    yield top
    subprocess.run(["umount", "--recursive", "--quiet", "--lazy", str(top / "podman/root/overlay")], check=False)
    shutil.rmtree(top, ignore_errors=True)


def caller(prefix: list[str]) -> Call:
    def call(*words: str, check: bool = True, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        # Files, not pipes: a container's monitor that lives on would keep those open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run([*prefix, *words], stdout=out, stderr=err, text=True, timeout=60, input=stdin)
            out.seek(0)
            err.seek(0)
            result = subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())
        assert not check or result.returncode == 0, result.stderr
        return result

    return call


@pytest.fixture(scope="module")
def podman(home: Path) -> Iterator[Call]:
    if not shutil.which("podman"):
        pytest.skip("needs podman")
    place = home / "podman"
    place.mkdir()
    call = caller(
        ["podman", f"--root={place}/root", f"--runroot={place}/run", f"--tmpdir={place}/tmp", "--events-backend=file",
         "--storage-driver=overlay", "--cgroup-manager=cgroupfs", f"--runtime={home}/kestrel-runtime"]
    )  # fmt: skip
    call("import", str(home / "root.tar"), IMAGE)
    yield call
    call("rm", "--all", "--force", check=False)
    for parent in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
        with contextlib.suppress(OSError):  # in use by somebody else's podman
            parent.rmdir()


def test_podman_runs_a_container_and_learns_its_exit_code(podman: Call) -> None:
    done = podman("run", "--rm", "--network=none", IMAGE, "sh", "-c", "id -u; echo $HOSTNAME; exit 3", check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("0\n")


@pytest.mark.parametrize(("program", "code"), [("nowhere", 127), ("/bin/nowhere", 127), ("/etc/passwd", 126)])
def test_podman_understands_why_a_program_cannot_run(podman: Call, program: str, code: int) -> None:
    done = podman("run", "--rm", "--network=none", IMAGE, program, check=False)
    assert done.returncode == code, done.stderr


def test_podman_has_a_container_to_work_with(podman: Call) -> None:
    podman("run", "-d", "--name=one", "--network=none", "--memory=64m", IMAGE, "sleep", "600")
    assert podman("exec", "one", "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '").stdout == "sleep 600 "
    assert podman("exec", "--user=1000", "one", "id", "-u").stdout == "1000\n"
    assert podman("exec", "-t", "one", "tty").stdout.strip() == "/dev/pts/0"
    assert podman("exec", "one", "sh", "-c", "exit 5", check=False).returncode == 5
    assert "sleep" in podman("top", "one").stdout
    podman("pause", "one")
    assert podman("inspect", "--format={{.State.Status}}", "one").stdout.strip() == "paused"
    podman("unpause", "one")
    podman("kill", "--signal=KILL", "one")
    assert podman("wait", "one").stdout.strip() == "137"
    podman("rm", "one")


def test_podman_restricts_what_a_container_may_do(podman: Call) -> None:
    words = ("run", "--rm", "--network=none", "--read-only", "--cap-drop=all", "--user=1000:1000", "--pids-limit=50")
    script = "touch /file; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; id -G"
    done = podman(*words, "--security-opt=no-new-privileges", "--tmpfs=/scratch", IMAGE, "sh", "-c", script)
    assert done.stdout.split() == ["CapEff:", "0000000000000000", "Seccomp:", "2", "1000"]
    assert "Read-only file system" in done.stderr


def test_podman_attaches_and_puts_input_in(podman: Call) -> None:
    assert podman("run", "--rm", "-i", "--network=none", IMAGE, "cat", stdin="to and fro\n").stdout == "to and fro\n"


def test_podman_shares_namespaces_in_a_pod_of_its_own(podman: Call) -> None:
    podman("run", "-d", "--name=first", "--network=none", "--ipc=shareable", IMAGE, "sleep", "600")
    read = ("sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid")
    words = ("run", "--rm", "--network=container:first", "--pid=container:first", "--ipc=container:first", IMAGE)
    assert podman(*words, *read).stdout == podman("exec", "first", *read).stdout
    podman("rm", "--force", "--time=0", "first")


# --- containerd, and docker over a containerd of its own -------------------------------------------------------------


@contextlib.contextmanager
def own_network() -> Iterator[list[str]]:
    """Hold a network and a mount namespace; yields the prefix that enters them."""
    script = "ip link set lo up 2>/dev/null; echo ready; exec sleep 86400"
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        yield ["nsenter", f"--target={holder.pid}", "--net", "--mount"]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@contextlib.contextmanager
def running(words: list[str], log: Path) -> Iterator[None]:
    """A daemon with what it starts in a process group of their own, which ends with the block."""
    with log.open("wb") as talk:
        daemon = subprocess.Popen(words, stdout=talk, stderr=talk, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def wait_for_answer(call: Call, log: Path) -> None:
    due = time.monotonic() + 30
    while call("version", check=False).returncode:
        assert time.monotonic() < due, log.read_text()[-2000:]
        time.sleep(0.1)


CONTAINERD = """\
version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{place}/sock"
"""


@pytest.fixture(scope="module")
def containerd(home: Path) -> Iterator[Call]:
    """`ctr` of a containerd of its own; `run` starts a container of the test's root filesystem."""
    if not shutil.which("containerd") or not shutil.which("ctr"):
        pytest.skip("needs containerd and ctr")
    place = home / "containerd"
    (place / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-C", str(place / "rootfs"), "-xf", str(home / "root.tar")], check=True)
    (place / "config.toml").write_text(CONTAINERD.format(place=place))
    call = caller(["ctr", f"--address={place}/sock", "--namespace=ktest"])

    def with_runtime(*words: str, check: bool = True, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        if words[0] != "run":
            return call(*words, check=check, stdin=stdin)
        *flags, name = words[1 : words.index("--")]
        runtime = f"--runc-binary={home}/kestrel-runtime"
        program = words[words.index("--") + 1 :]
        return call("run", runtime, *flags, "--rootfs", f"{place}/rootfs", name, *program, check=check, stdin=stdin)

    with running(["containerd", f"--config={place}/config.toml"], place / "log"):
        wait_for_answer(call, place / "log")
        yield with_runtime
        for name in call("containers", "list", "--quiet").stdout.split():
            call("tasks", "kill", "--signal=KILL", name, check=False)
            call("tasks", "delete", "--force", name, check=False)
            call("containers", "delete", name, check=False)
    remove_group("ktest")  # containerd calls the group as its namespace


def test_containerd_runs_a_container_and_learns_its_exit_code(containerd: Call) -> None:
    done = containerd("run", "--rm", "once", "--", "sh", "-c", "id -u; exit 3", check=False)
    assert (done.returncode, done.stdout) == (3, "0\n"), done.stderr


def test_containerd_says_why_a_program_cannot_run(containerd: Call) -> None:
    done = containerd("run", "--rm", "never", "--", "nowhere", check=False)
    assert done.returncode != 0
    assert "executable file not found in $PATH" in done.stderr


def test_containerd_has_a_container_to_work_with(containerd: Call) -> None:
    def status() -> str:
        rows = containerd("tasks", "list").stdout.splitlines()
        return next(row.split()[2] for row in rows if row.startswith("one "))

    containerd("run", "--detach", "--memory-limit=67108864", "one", "--", "sleep", "600")
    assert containerd("tasks", "exec", "--exec-id=e1", "one", "sh", "-c", "exit 5", check=False).returncode == 5
    words = containerd("tasks", "exec", "--exec-id=e2", "one", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline").stdout
    assert words == "sleep 600 "
    containerd("tasks", "pause", "one")
    assert status() == "PAUSED"
    containerd("tasks", "resume", "one")
    assert status() == "RUNNING"
    assert len(containerd("tasks", "ps", "one").stdout.splitlines()) == 2  # a heading, and the one process
    containerd("tasks", "kill", "--signal=KILL", "one")
    due = time.monotonic() + 30
    while status() != "STOPPED":
        assert time.monotonic() < due
        time.sleep(0.05)
    assert "exit code 137" in containerd("tasks", "delete", "one").stderr
    containerd("containers", "delete", "one")


@pytest.fixture(scope="module")
def docker(home: Path) -> Iterator[Call]:
    """dockerd, which starts a containerd of its own, in a network namespace of their own."""
    if not shutil.which("dockerd") or not shutil.which("docker"):
        pytest.skip("needs dockerd and docker")
    place = home / "docker"
    place.mkdir()
    (place / "daemon.json").write_text(json.dumps({"runtimes": {"kestrel": {"path": str(home / "kestrel-runtime")}}}))
    call = caller(["docker", f"--host=unix://{place}/sock"])
    with own_network() as enter:
        words = [
            *enter, "dockerd", f"--host=unix://{place}/sock", f"--data-root={place}/data", f"--exec-root={place}/exec",
            f"--pidfile={place}/pid", "--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent=kestrel-test-docker",
            f"--config-file={place}/daemon.json", "--default-runtime=kestrel", "--bridge=none", "--iptables=false",
        ]  # fmt: skip
        with running(words, place / "log"):
            wait_for_answer(call, place / "log")
            call("import", str(home / "root.tar"), IMAGE)
            yield call
            for name in call("ps", "--all", "--quiet").stdout.split():
                call("rm", "--force", name)
        remove_group("kestrel-test-docker")


def test_docker_runs_a_container_and_learns_its_exit_code(docker: Call) -> None:
    done = docker("run", "--rm", "--network=none", IMAGE, "sh", "-c", "id -u; exit 3", check=False)
    assert (done.returncode, done.stdout) == (3, "0\n"), done.stderr
    assert "kestrel" in docker("info", "--format={{.DefaultRuntime}}").stdout


@pytest.mark.parametrize(("program", "code"), [("nowhere", 127), ("/etc/passwd", 126)])
def test_docker_understands_why_a_program_cannot_run(docker: Call, program: str, code: int) -> None:
    done = docker("run", "--rm", "--network=none", IMAGE, program, check=False)
    assert done.returncode == code, done.stderr


def test_docker_has_a_container_to_work_with(docker: Call) -> None:
    docker("run", "-d", "--name=one", "--network=none", "--memory=64m", "--init=false", IMAGE, "sleep", "600")
    assert docker("exec", "one", "sh", "-c", "echo in").stdout == "in\n"
    assert docker("exec", "one", "nowhere", check=False).returncode in (126, 127)  # by docker's age
    assert "sleep" in docker("top", "one").stdout
    docker("pause", "one")
    assert docker("inspect", "--format={{.State.Status}}", "one").stdout.strip() == "paused"
    docker("unpause", "one")
    docker("update", "--memory=80m", "--memory-swap=80m", "one")
    docker("stop", "--time=0", "one")
    assert docker("inspect", "--format={{.State.ExitCode}}", "one").stdout.strip() == "137"
    docker("start", "one")
    docker("rm", "--force", "one")
