"""What flows through kubectl: logs, exec, attach, run, copies, forwarded ports, debug containers."""

import hashlib
import os
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from kestrel.testing.instance import free_port, wait_until
from kestrel.testing.kubectl import IMAGE, Kubectl, container, pod, shell, status_of

pytestmark = [pytest.mark.root, pytest.mark.clients]


@pytest.fixture
def box(kube) -> Kubectl:
    """kubectl with a pod `box` that sleeps."""
    kube.apply(pod("box"))
    kube.running("box")
    return kube


# logs


def test_logs_are_cut_stamped_and_prefixed(kube):
    kube.apply(pod("talker", shell("seq 1 5; echo oops >&2; sleep 1000", "a"), shell("echo other; sleep 1000", "b")))
    kube.running("talker")
    assert kube("logs", "talker", "-c", "a").out == "1\n2\n3\n4\n5\noops\n"
    assert kube("logs", "talker", "-c", "a", "--tail=2").out == "5\noops\n"
    assert kube("logs", "talker", "-c", "a", "--limit-bytes=3").out == "1\n2"
    stamped = kube("logs", "talker", "-c", "a", "--timestamps", "--tail=1").out
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z oops\n", stamped)
    prefixed = kube("logs", "talker", "--all-containers", "--prefix").out
    assert "[pod/talker/a] 1\n" in prefixed
    assert "[pod/talker/b] other\n" in prefixed
    assert kube("logs", "talker", "-c", "a", "--since=1h").out.count("\n") == 6
    assert kube("logs", "talker", "-c", "a", "--since-time=2099-01-01T00:00:00Z").out == ""
    assert "container nope is not valid" in kube.fails("logs", "talker", "-c", "nope")


def test_a_log_is_followed_until_its_container_ends(kube):
    kube.apply(pod("talker", shell("for n in 1 2 3; do echo $n; sleep 0.3; done"), restartPolicy="Never"))
    kube.until("talker", lambda p: p["status"]["phase"] != "Pending")
    assert kube("logs", "-f", "talker").out == "1\n2\n3\n"


def test_the_log_of_the_start_before_is_kept(kube):
    kube.apply(
        pod(
            "phoenix",
            shell(
                "if [ -e /d/x ]; then echo second; sleep 1000; fi; touch /d/x; echo first; exit 1",
                volumeMounts=[{"name": "d", "mountPath": "/d"}],
            ),
            volumes=[{"name": "d", "emptyDir": {}}],
        )
    )
    kube.until("phoenix", lambda p: status_of(p).get("restartCount") == 1 and status_of(p)["ready"])
    assert kube("logs", "phoenix", "--previous").out == "first\n"
    assert kube("logs", "phoenix").out == "second\n"


def test_logs_of_what_has_not_started_say_why(kube):
    kube.apply(pod("late", container(image="localhost:1/none:1")))
    kube.waiting("late", "ImagePullBackOff")
    assert "waiting to start: trying and failing to pull image" in kube.fails("logs", "late")
    assert 'previous terminated container "main"' in kube.fails("logs", "late", "--previous")


# exec and attach


def test_exec_has_streams_exit_codes_and_a_container(kube):
    kube.apply(pod("two", container("a"), container("b", env=[{"name": "WHO", "value": "b"}])))
    kube.running("two")
    answer = kube("exec", "two", "-c", "b", "--", "sh", "-c", "echo $WHO; echo oops >&2; exit 42", code=42)
    assert (answer.out, answer.err.splitlines()[0]) == ("b\n", "oops")
    assert "executable file not found in $PATH" in kube.fails("exec", "two", "-c", "a", "--", "nope")
    assert "container nope is not valid" in kube.fails("exec", "two", "-c", "nope", "--", "true")


def test_much_data_goes_in_and_out_unharmed(box):
    data = os.urandom(8 * 1024 * 1024)
    digest = hashlib.sha256(data).hexdigest()
    answer = box("exec", "-i", "box", "--", "sh", "-c", "cat > /tmp/data; sha256sum < /tmp/data", stdin=data)
    assert answer.out.split()[0] == digest
    with box.background("exec", "box", "--", "cat", "/tmp/data") as reading:
        assert reading.stdout is not None
        assert hashlib.sha256(reading.stdout.read()).hexdigest() == digest


def test_a_file_written_after_an_exec_goes_through_to_the_image_s_directories(box):
    """An exec once mounted the container's layers a second time, after which nothing in them could be changed."""
    box("exec", "box", "--", "true")
    box("exec", "box", "--", "sh", "-c", "echo x > /home/file && rm /etc/group && cat /home/file")


def test_a_terminal_echoes_resizes_and_ends(box):
    with box.terminal("exec", "-it", "box", "--", "sh") as terminal:
        terminal.resize(31, 97)
        terminal.write("stty size; tty\n")
        terminal.read_until("31 97")
        terminal.read_until("/dev/pts/0")
        terminal.resize(20, 60)
        wait_until(lambda: _size(terminal) == "20 60", timeout=10)
        terminal.write("exit 9\n")
        assert terminal.wait() == 9


def _size(terminal) -> str:
    # What is typed is echoed, and painted again when the line is too long for the terminal: the answer must differ.
    terminal.write("stty size; echo d''one\n")
    found = re.search(r"(\d+ \d+)\r\ndone", terminal.read_until("done"))
    return found[1] if found else ""


def test_ctrl_c_interrupts_what_runs_on_the_terminal(box):
    # Not one long sleep: a signal that comes between `echo` and its fork would be looked at after it.
    script = "trap 'echo caught; exit 5' INT; echo go; while :; do sleep 0.1; done"
    with box.terminal("exec", "-it", "box", "--", "sh", "-c", script) as it:
        it.read_until("go")
        it.write("\x03")
        it.read_until("caught")
        assert it.wait() == 5


def test_attach_shows_what_is_said_from_now_on(kube):
    kube.apply(pod("cat", shell("while read line; do echo got $line; done", stdin=True)))
    kube.running("cat")
    with kube.background("attach", "-i", "cat") as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(b"hello\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == b"got hello\n"


# run


def test_run_gives_input_output_and_the_exit_code(kube):
    once = ("run", "once", f"--image={IMAGE}", "-i", "--rm", "-q", "--restart=Never")
    said = kube(*once, "--", "sh", "-c", "cat; exit 3", stdin="hello\n", code=3)
    assert "hello\n" in said.out
    assert kube.get("pods", "once") is None


def test_run_takes_command_environment_labels_and_overrides(kube):
    kube(
        "run",
        "web",
        f"--image={IMAGE}",
        "--env=A=b",
        "--labels=x=y",
        "--port=80",
        "--command",
        '--overrides={"spec":{"terminationGracePeriodSeconds":0,"hostname":"other"}}',
        "--",
        "sleep",
        "1000",
    )
    found = kube.running("web")
    assert found["metadata"]["labels"] == {"x": "y"}
    assert kube("exec", "web", "--", "sh", "-c", "echo $A $(hostname)").out == "b other\n"


def test_a_shell_in_a_pod_of_its_own(kube):
    with kube.terminal("run", "shell", f"--image={IMAGE}", "-it", "--rm", "--restart=Never", "--", "sh") as terminal:
        terminal.read_until("# ")
        terminal.write("echo $((6*7)); exit\n")
        terminal.read_until("42")
        assert terminal.wait(20) == 0
    assert kube.get("pods", "shell") is None


# cp


def test_directories_are_copied_both_ways(box, tmp_path):
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("deep")
    (source / "run").write_text("#!/bin/sh\necho ran\n")
    (source / "run").chmod(0o755)
    box("cp", str(source), "box:/tmp/tree")
    assert box("exec", "box", "--", "sh", "-c", "/tmp/tree/run; cat /tmp/tree/sub/file").out == "ran\ndeep"
    box("cp", "box:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_text() == "deep"


def test_copying_into_an_image_without_tar_says_so(box, tmp_path):
    box("exec", "box", "--", "rm", "/bin/tar")
    (tmp_path / "file").write_text("x")
    assert '"tar": executable file not found' in box.fails("cp", str(tmp_path / "file"), "box:/tmp/file")


# port-forward


def test_a_port_is_forwarded_for_several_connections_at_once(kube):
    kube.apply(pod("web", shell("mkdir /www; seq 1 200000 > /www/big; exec httpd -f -p 80 -h /www")))
    kube.running("web")
    port = free_port()
    with kube.background("port-forward", "web", f"{port}:80") as forwarding:
        assert forwarding.stdout is not None
        assert b"Forwarding from" in forwarding.stdout.readline()

        def fetch(_: int) -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/big", timeout=15) as response:
                return len(response.read())

        with ThreadPoolExecutor(5) as pool:
            assert set(pool.map(fetch, range(10))) == {1288895}


def test_a_port_nobody_listens_on_is_said_to_refuse(box):
    port = free_port()
    with box.background("port-forward", "box", f"{port}:81") as forwarding:
        assert forwarding.stdout is not None
        assert forwarding.stderr is not None
        forwarding.stdout.readline()
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
        said = forwarding.stderr.readline().decode()
        while "refused" not in said:
            said += forwarding.stderr.readline().decode()
    assert "port 81" in said


# debug


def test_a_debug_container_sees_the_processes_of_its_target(kube):
    kube.apply(pod("web", container("main", "sleep", "4242")))
    kube.running("web")
    kube("debug", "web", f"--image={IMAGE}", "--target=main", "-c", "look", "--", "sh", "-c", "ps; cat /proc/1/cmdline")
    found = kube.until("web", lambda p: status_of(p, "look").get("state", {}).get("terminated"))
    assert "sleep 4242" in kube("logs", "web", "-c", "look").out
    assert status_of(found, "main")["ready"]
    assert status_of(found, "main")["restartCount"] == 0
    assert status_of(found, "look")["state"]["terminated"]["exitCode"] == 0
    assert "Started container look" in kube.event("web", "Started", "look")


def test_a_debug_shell_has_the_network_of_the_pod_and_ends_with_the_person(kube):
    kube.apply(pod("web", container("main", "httpd", "-f", "-p", "80", "-h", "/etc")))
    kube.running("web")
    with kube.terminal("debug", "-it", "web", f"--image={IMAGE}", "--", "sh") as terminal:
        terminal.read_until("# ")
        terminal.write("wget -qO- http://localhost/hostname\n")
        terminal.read_until("web\r\n")
        terminal.write("exit\n")
        assert terminal.wait() == 0


def test_debug_refuses_an_unknown_target_and_copies_a_pod(kube):
    kube.apply(pod("web", container("main", "sleep", "4242")))
    kube.running("web")
    refused = kube.fails("debug", "web", f"--image={IMAGE}", "--target=nope", "--", "ps")
    assert 'targetContainerName: Not found: "nope"' in refused
    kube("debug", "web", f"--image={IMAGE}", "--copy-to=twin", "--share-processes", "-c", "look", "--", "sleep", "1000")
    kube.until("twin", lambda p: all(s["ready"] for s in p["status"].get("containerStatuses") or [{"ready": False}]))
    assert "sleep 4242" in kube("exec", "twin", "-c", "look", "--", "ps").out


def test_a_node_is_debugged_from_a_pod_with_its_files(kube):
    [node] = kube.json("get", "nodes")["items"]
    name = node["metadata"]["name"]
    kube("debug", f"node/{name}", f"--image={IMAGE}", "--", "ls", "/host/proc/1/ns")
    [debugger] = kube.objects("pods")
    ended = kube.phase(debugger["metadata"]["name"], "Succeeded")
    assert "mnt" in kube("logs", ended["metadata"]["name"]).out


def test_a_probe_that_never_stops_talking_fails_in_time_and_fills_no_memory(kube):
    probe = {"exec": {"command": ["yes"]}, "timeoutSeconds": 1, "periodSeconds": 1, "failureThreshold": 99}
    daemon = kube.instance.daemon()
    before = _peak(daemon)
    kube.apply(pod("talker", shell("sleep 1000", livenessProbe=probe)))
    assert kube.event("talker", "Unhealthy", "timed out")
    assert _peak(daemon) - before < 64 * 1024
    assert status_of(kube.get("pods", "talker"))["state"].get("running")


def _peak(pid: int) -> int:
    """Return the most memory a process has had, in KiB (`man 5 proc`, VmHWM)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def test_several_attach_at_once_and_one_who_leaves_ends_nothing(kube):
    kube.apply(pod("cat", shell("while read line; do echo got $line; done; echo end", stdin=True)))
    kube.running("cat")
    with kube.terminal("attach", "cat") as watching, kube.terminal("attach", "-i", "cat") as typing:
        for number in range(50):  # both have to be attached before what they are to see is said
            typing.write(f"n{number}\n")
            try:
                watching.read_until(f"got n{number}", timeout=1)
                break
            except AssertionError:
                continue
        typing.read_until("got n")
        typing.process.kill()
        with kube.terminal("attach", "-i", "cat") as again:
            for number in range(50, 100):
                again.write(f"n{number}\n")
                try:
                    again.read_until(f"got n{number}", timeout=1)
                    break
                except AssertionError:
                    continue
            watching.read_until(f"got n{number}")
    assert status_of(kube.get("pods", "cat"))["state"].get("running")
