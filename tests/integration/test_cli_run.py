"""`kestrel run`, flag by flag, and what is seen from inside, from outside and from another container."""

import socket
import urllib.request
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance, free_port, wait_until

pytestmark = pytest.mark.root


def sh(kestrel: Instance, script: str, *flags: str, code: int = 0) -> str:
    """Run a shell line in a container of its own and return what it printed."""
    return kestrel("run", "--rm", *flags, "box", "sh", "-c", script, code=code).out


def test_output_goes_to_its_own_streams_and_nothing_is_added(platform: Instance) -> None:
    answer = platform("run", "--rm", "box", "sh", "-c", "echo data; echo talk >&2")
    assert (answer.out, answer.err) == ("data\n", "talk\n")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("sh -c 'kill -9 $$'; exit $?", 137), ("exit 255", 255)]
)
def test_the_exit_code_is_the_containers(platform: Instance, script: str, code: int) -> None:
    platform("run", "--rm", "box", "sh", "-c", script, code=code)


def test_input_is_carried_to_the_end_and_its_end_too(platform: Instance) -> None:
    assert platform("run", "--rm", "-i", "box", "cat", stdin="one\ntwo\n", timeout=20).out == "one\ntwo\n"


def test_input_and_output_larger_than_every_buffer_arrive_whole(platform: Instance) -> None:
    data = b"0123456789abcdef" * 65536 * 8
    answer = platform("run", "--rm", "-i", "box", "sh", "-c", "cat | tee /dev/null", stdin=data)
    assert answer.out.encode() == data


def test_without_i_there_is_no_input(platform: Instance) -> None:
    assert platform("run", "--rm", "box", "sh", "-c", "cat; echo end", stdin="ignored\n").out == "end\n"


def test_output_that_stops_being_read_does_not_hang_the_command(platform: Instance) -> None:
    process = platform.start("run", "--rm", "box", "sh", "-c", "yes | head -c 3000000")
    assert process.stdout is not None
    with process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(20) == 141


def test_detached_prints_the_id_and_logs_have_the_output(platform: Instance) -> None:
    identity = platform("run", "-d", "box", "sh", "-c", "echo out; echo err >&2; exit 3").out.strip()
    assert len(identity) == 64
    assert platform("wait", identity).out == "3\n"
    answer = platform("logs", identity)
    assert (answer.out, answer.err) == ("out\n", "err\n")


def test_rm_leaves_no_container_and_without_it_one_stays(platform: Instance) -> None:
    platform("run", "--rm", "--name", "gone", "box", "true")
    platform("run", "--name", "stays", "box", "true")
    assert "gone" not in platform("ps", "-a").out
    assert platform.inspect("stays")["state"] == "exited"


def test_detached_with_rm_is_removed_at_its_end(platform: Instance) -> None:
    platform("run", "-d", "--rm", "--name", "short", "box", "sleep", "0.2")
    wait_until(lambda: not platform("ps", "-a", "-q").out)
    platform("inspect", "short", code=1)


def test_a_published_port_is_reached_on_loopback_and_ends_with_the_container(platform: Instance) -> None:
    port = free_port()
    script = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www"
    platform("run", "-d", "--name", "web", "-p", f"{port}:80", "box", "sh", "-c", script)
    assert wait_until(lambda: _get(port)) == b"served\n"
    assert f"0.0.0.0:{port}->80/tcp" in platform("ps").out
    platform("stop", "-t", "0", "web")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_port_of_the_hosts_choice_is_told_and_reached(platform: Instance) -> None:
    platform("run", "-d", "--name", "web", "-p", "80", "box", "sh", "-c", "echo hi > i; exec httpd -f -p 80 -h /")
    told = platform("ps", "--json").json()[0]["ports"][0]
    port = int(told.partition("->")[0].rpartition(":")[2])
    assert wait_until(lambda: _get(port, "i")) == b"hi\n"


def _get(port: int, path: str = "") -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=2) as answer:
            data: bytes = answer.read()
            return data
    except OSError:
        return b""


def test_a_bind_mount_shows_the_hosts_directory_and_ro_forbids_writing(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    assert sh(platform, "cat /data/in; echo back > /data/out", "-v", f"{tmp_path}:/data") == "from the host\n"
    assert (tmp_path / "out").read_text() == "back\n"
    answer = platform("run", "--rm", "-v", f"{tmp_path}:/data:ro", "box", "touch", "/data/no", code=1)
    assert "Read-only file system" in answer.err


def test_a_single_file_can_be_mounted(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one file\n")
    assert sh(platform, "cat /etc/deep/f", "-v", f"{tmp_path}/f:/etc/deep/f") == "one file\n"


def test_a_named_volume_keeps_what_was_written_and_the_root_does_not(platform: Instance) -> None:
    sh(platform, "echo kept > /v/a; echo lost > /b", "-v", "ktestvol:/v")
    assert sh(platform, "cat /v/a; ls /b 2>/dev/null; true", "-v", "ktestvol:/v") == "kept\n"


def test_tmpfs_is_memory_and_empty(platform: Instance) -> None:
    assert "tmpfs /scratch tmpfs rw" in sh(platform, "grep /scratch /proc/mounts", "--tmpfs", "/scratch")


def test_network_none_has_loopback_alone(platform: Instance) -> None:
    assert sh(platform, "ls /sys/class/net; ip route", "--network", "none") == "lo\n"


def test_network_host_is_the_hosts(platform: Instance) -> None:
    names = {name for _, name in socket.if_nameindex()}
    assert set(sh(platform, "ls /sys/class/net", "--network", "host").split()) >= {"lo", f"{platform.name}0"} & names
    port = free_port()
    command = ("run", "--rm", "--network", "host", "box", "nc", "127.0.0.1", str(port))
    with socket.create_server(("127.0.0.1", port)) as server, platform.start(*command) as process:
        peer, _ = server.accept()
        peer.sendall(b"from the host")
        peer.close()
        assert process.communicate(timeout=20)[0] == b"from the host"


def test_memory_limit_ends_a_greedy_container_and_says_so(platform: Instance) -> None:
    platform("run", "--name", "greedy", "-m", "32m", "box", "tail", "/dev/zero", code=137)
    found = platform.inspect("greedy")
    assert (found["reason"], found["oom_killed"], found["exit_code"]) == ("OOMKilled", True, 137)
    assert "OOMKilled" in platform("ps", "-a").out


def test_limits_reach_the_cgroup(platform: Instance) -> None:
    flags = ("-m", "64m", "--cpus", "0.5", "--pids-limit", "50")
    container = platform("run", "-d", *flags, "box", "sleep", "60").out.strip()
    values = {}
    for path in platform.cgroups():
        if path.endswith(container[:12]):
            for name in ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max"):
                if (Path(path) / name).exists():
                    values[name.partition(".")[0]] = (Path(path) / name).read_text().split()[0]
    assert values == {"memory": str(64 << 20), "cpu": "50000", "pids": "50"}


def test_limits_of_a_process_and_the_size_of_its_shared_memory(platform: Instance) -> None:
    flags = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "1m")
    script = "ulimit -Sn; ulimit -Hn; ulimit -c; df -k /dev/shm | awk 'END {print $2}'"
    assert sh(platform, script, *flags).split() == ["100", "200", "0", "1024"]
    container = platform("run", "-d", *flags, "box", "sleep", "60").out.strip()
    assert platform("exec", container, "sh", "-c", "ulimit -Sn; ulimit -Hn").out.split() == ["100", "200"]
    assert "1.05MB in /dev/shm" in platform("explain", container).out
    assert "did you mean `nofile`?" in platform("run", "--ulimit", "files=1", "box", "true", code=125).err
    platform("rm", "-f", container)


def test_a_fork_bomb_stops_at_the_limit_of_processes(platform: Instance) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait"
    answer = platform("run", "--rm", "--pids-limit", "6", "box", "sh", "-c", script, code=None)
    assert answer.code != 0
    assert "can't fork" in answer.err


def test_a_read_only_root_takes_no_writes_but_volumes_do(platform: Instance) -> None:
    script = "touch /x 2>&1; echo ok > /v/f; cat /v/f"
    assert sh(platform, script, "--read-only", "--tmpfs", "/v") == "touch: /x: Read-only file system\nok\n"


def test_capabilities_can_be_dropped_and_added(platform: Instance) -> None:
    def effective(*flags: str) -> int:
        return int(sh(platform, "grep CapEff /proc/self/status", *flags).split()[1], 16)

    assert effective("--cap-drop", "ALL") == 0
    assert effective("--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE") == 1 << 10
    assert effective() & ~effective("--cap-drop", "CHOWN") == 1


def test_security_options_set_no_new_privileges_and_take_seccomp_away(platform: Instance) -> None:
    script = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status"
    assert sh(platform, script).split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]
    flags = ("--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined")
    assert sh(platform, script, *flags).split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("alice", "1000 1000 10 1000"),
        ("1000", "1000 1000 10 1000"),
        ("alice:wheel", "1000 10 10"),
        ("4711:4712", "4711 4712 4712"),
        ("", "0 0 0"),
    ],
)
def test_the_user_is_who_was_asked_for(platform: Instance, user: str, shown: str) -> None:
    script = "echo $(id -u) $(id -g) $(grep Groups /proc/self/status | cut -f2)"
    assert sh(platform, script, *(("-u", user) if user else ())).split() == shown.split()


def test_home_is_the_users(platform: Instance) -> None:
    assert sh(platform, "echo $HOME", "-u", "alice") == "/home/alice\n"


def test_a_missing_working_directory_is_made_and_entered(platform: Instance) -> None:
    assert sh(platform, "pwd", "-w", "/deep/er") == "/deep/er\n"


def test_variables_are_set_handed_on_and_never_inherited(platform: Instance) -> None:
    answer = platform(
        "run", "--rm", "-e", "A=1", "-e", "HANDED", "-e", "UNSET", "box", "env", env={"HANDED": "on", "SECRET": "no"}
    )
    found = dict(line.partition("=")[::2] for line in answer.out.splitlines())
    assert found.pop("HOSTNAME")
    assert found == {"A": "1", "HANDED": "on", "PATH": "/bin", "HOME": "/root"}


def test_entrypoint_replaces_the_images_and_its_cmd(platform: Instance) -> None:
    assert platform("run", "--rm", "--entrypoint", "echo", "box", "a", "b").out == "a b\n"
    assert platform("run", "--rm", "--entrypoint", "hostname", "--hostname", "named", "box").out == "named\n"


def test_options_after_the_image_belong_to_the_container(platform: Instance) -> None:
    assert platform("run", "--rm", "box", "echo", "--rm", "-x").out == "--rm -x\n"


def test_another_container_is_found_by_name_and_forgotten_when_it_ends(platform: Instance) -> None:
    platform("run", "-d", "--name", "server", "box", "sh", "-c", "echo hi > /i; exec httpd -f -p 80 -h /")
    assert sh(platform, "for i in 1 2 3 4 5; do wget -q -O - http://server/i && break; sleep 0.1; done") == "hi\n"
    platform("rm", "-f", "server")
    sh(platform, "nslookup server >/dev/null 2>&1", code=1)


def test_resolv_conf_names_the_platforms_resolver_and_hosts_the_containers_address(platform: Instance) -> None:
    shown = sh(platform, "cat /etc/resolv.conf; hostname -i; ip route | head -1; cat /etc/hostname; hostname")
    lines = shown.splitlines()
    gateway = lines[2].split()[2]
    assert lines[0] == f"nameserver {gateway}"
    assert lines[1].rpartition(".")[0].split(".")[:2] == gateway.split(".")[:2]
    assert lines[3] == lines[4]


def test_pull_never_says_that_the_image_is_not_here(platform: Instance) -> None:
    answer = platform("run", "--rm", "--pull", "never", "localhost:1/absent", code=125)
    assert "localhost:1/absent" in answer.err


def test_privileged_has_every_right_of_the_hosts_root(platform: Instance) -> None:
    shown = sh(
        platform,
        "grep CapEff /proc/self/status; mount -t tmpfs none /mnt2 || mkdir /m && mount -t tmpfs x /m && echo mounted",
        "--privileged",
    )
    assert shown.endswith("mounted\n")
