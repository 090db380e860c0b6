"""What a process in a container sees and may do, asked from inside."""

import os
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance

pytestmark = pytest.mark.root


def sh(kestrel: Instance, script: str, *flags: str, code: int = 0) -> str:
    return kestrel("run", "--rm", *flags, "box", "sh", "-c", script, code=code).out


def test_it_is_pid_1_and_sees_no_process_but_its_own(platform: Instance) -> None:
    platform("run", "-d", "--name", "other", "box", "sleep", "60")
    assert sh(platform, "echo $$; echo /proc/[0-9]*").split() == ["1", "/proc/1"]


def test_its_root_is_the_images_and_the_hosts_files_are_not_there(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    shown = sh(platform, f"ls -A /; cat {tmp_path}/secret 2>&1; ls -A /proc/1/root/ | wc -l; ls -d /../../..")
    assert "No such file" in shown
    assert not {"lib64", "boot", "opt", "usr"} & set(shown.split())


def test_its_network_is_its_own(platform: Instance) -> None:
    assert sorted(sh(platform, "ls /sys/class/net").split()) == ["eth0", "lo"]
    assert "0100007F" not in sh(platform, "cat /proc/net/tcp")


@pytest.mark.parametrize("kind", ["mnt", "pid", "net", "uts", "ipc", "cgroup"])
def test_its_namespaces_are_its_own(platform: Instance, kind: str) -> None:
    assert sh(platform, f"readlink /proc/self/ns/{kind}").strip() != os.readlink(f"/proc/self/ns/{kind}")


def test_two_containers_share_no_namespace(platform: Instance) -> None:
    script = "for k in mnt pid net uts ipc cgroup; do readlink /proc/self/ns/$k; done"
    first, second = (platform("run", "-d", "box", "sleep", "60").out.strip() for _ in range(2))
    shown = [set(platform("exec", name, "sh", "-c", script).out.split()) for name in (first, second)]
    assert not shown[0] & shown[1]


def test_it_has_dockers_default_capabilities_and_no_more(platform: Instance) -> None:
    effective = int(sh(platform, "grep CapBnd /proc/self/status").split()[1], 16)
    assert effective & ~0x00000000A80425FB == 0
    assert not effective >> 21 & 1  # CAP_SYS_ADMIN
    assert int(sh(platform, "grep CapEff /proc/self/status", "-u", "alice").split()[1], 16) == 0
    assert int(sh(platform, "grep CapAmb /proc/self/status").split()[1], 16) == 0


def test_seccomp_is_on_for_it_and_for_what_is_executed_in_it(platform: Instance) -> None:
    assert sh(platform, "grep Seccomp: /proc/self/status").split()[1] == "2"
    platform("run", "-d", "--name", "host", "box", "sleep", "60")
    assert platform("exec", "host", "grep", "Seccomp:", "/proc/self/status").out.split()[1] == "2"


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"])
def test_masked_files_are_empty(platform: Instance, path: str) -> None:
    assert sh(platform, f"[ ! -e {path} ] || head -c 1 {path} | wc -c").strip() in ("", "0")


@pytest.mark.parametrize("path", ["/proc/acpi", "/proc/scsi", "/sys/firmware"])
def test_masked_directories_are_empty(platform: Instance, path: str) -> None:
    assert sh(platform, f"[ ! -d {path} ] || ls -A {path}") == ""


@pytest.mark.parametrize(
    "script",
    [
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/kernel/panic",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /sys/kernel/profiling",
        "mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/pids/x",
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /sys",
        "mount -o bind / /tmp",
        "umount /proc",
        "dmesg",
        "mknod /tmp/sda b 8 0 && head -c 1 /tmp/sda",
        "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg",
        "hostname other",
        "date -s 2001-01-01; [ $(date +%Y) = 2001 ]",
        "chroot /proc/1/root/proc/1/cwd/../../.. /sbin/init --absent",
        "swapoff -a && swapon /etc/passwd",
        "insmod /etc/passwd",
        "ip link add x type dummy",
        "nsenter -t 1 -m -- true && unshare -m true",
        "head -c 1 /dev/mem",
        "reboot -f",
    ],
)
def test_what_is_the_hosts_is_denied(platform: Instance, script: str) -> None:
    answer = platform("run", "--rm", "box", "sh", "-c", f"({script}) 2>/dev/null && echo DONE; true")
    assert "DONE" not in answer.out


def test_no_descriptor_is_left_open(platform: Instance) -> None:
    assert sh(platform, "ls /proc/self/fd; ls /proc/1/fd; true").split() == ["0", "1", "2", "3", "0", "1", "2"]
    platform("run", "-d", "--name", "host", "box", "sleep", "60")
    assert platform("exec", "host", "ls", "/proc/self/fd").out.split() == ["0", "1", "2", "3"]


def test_no_variable_of_the_daemon_is_seen(platform: Instance) -> None:
    shown = sh(platform, "cat /proc/1/environ | tr '\\0' '\\n' | cut -d= -f1")
    assert set(shown.split()) == {"PATH", "HOSTNAME", "HOME"}
    platform("run", "-d", "--name", "host", "box", "sleep", "60")
    assert "KESTREL" not in platform("exec", "host", "env").out


def test_devices_are_the_harmless_ones(platform: Instance) -> None:
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "core",
                "stdin", "stdout", "stderr", "console"}  # fmt: skip
    assert set(sh(platform, "ls /dev").split()) <= harmless


def test_no_mount_of_a_container_is_in_the_hosts_table(platform: Instance) -> None:
    platform("run", "-d", "box", "sleep", "60")
    assert str(platform.base) not in Path("/proc/self/mountinfo").read_text()


def test_what_is_written_to_the_root_is_gone_for_the_next(platform: Instance) -> None:
    sh(platform, "echo x > /written; rm /bin/ls")
    assert sh(platform, "ls /written 2>&1 || true").strip().endswith("No such file or directory")


def test_a_user_that_is_not_root_cannot_become_it(platform: Instance) -> None:
    answer = platform(
        "run", "--rm", "-u", "alice", "box", "sh", "-c", "su root -c id 2>&1; cat /proc/1/mem | head -c 1"
    )
    assert "uid=0" not in answer.out


def test_containers_on_the_bridge_cannot_reach_the_loopback_of_the_host(platform: Instance) -> None:
    shown = sh(platform, f"nc -w 2 127.0.0.1 {platform.kubernetes_port} </dev/null 2>&1; echo code $?")
    assert "code 0" not in shown
