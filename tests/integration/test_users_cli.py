"""Users of a container's own: on by default, off where the host's are asked for, and what becomes of files."""

import os
import tarfile
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance, wait_until

pytestmark = pytest.mark.root

HOSTS = ["0", "0", "4294967295"]
MAP = "cat /proc/self/uid_map"


def sh(kestrel: Instance, script: str, *flags: str, code: int = 0) -> str:
    return kestrel("run", "--rm", *flags, "box", "sh", "-c", script, code=code).out


def owner(pid: int) -> int:
    """Return the user of the host that a process runs as."""
    return os.stat(f"/proc/{pid}").st_uid


def test_root_in_a_container_is_nobody_on_the_host_and_each_container_is_another(platform: Instance) -> None:
    names = [platform("run", "-d", "box", "sleep", "60").out.strip() for _ in range(3)]
    found = [platform.inspect(name) for name in names]
    firsts = {owner(container["pid"]) for container in found}
    assert len(firsts) == 3
    assert firsts == {container["first_id"] for container in found} == {c["sandbox"]["first_id"] for c in found}
    assert all(first > 500_000_000 for first in firsts)
    assert platform("exec", names[0], "id").out.startswith("uid=0(root) gid=0(root)")
    assert platform("exec", names[0], "sh", "-c", MAP).out.split() == ["0", str(found[0]["first_id"]), "65536"]


def test_its_rights_are_over_its_own_network(platform: Instance) -> None:
    script = f"{MAP}; ip addr add 10.1.2.3/32 dev lo && ip addr show lo | grep -c 10.1.2.3"
    assert sh(platform, script, "--cap-add", "NET_ADMIN").split()[1:] != [*HOSTS[1:], "1"]
    assert sh(platform, "ip addr add 10.1.2.3/32 dev lo 2>&1 || echo refused").split()[-1] == "refused"


def test_anybody_may_bind_a_low_port_and_root_may_ping(platform: Instance) -> None:
    assert "1 packets received" in sh(platform, "ping -c 1 -W 5 127.0.0.1")
    for user in ("root", "alice"):
        assert ":80 " in sh(platform, "nc -l -p 80 </dev/null & sleep 0.3; netstat -lnt", "-u", user), user


@pytest.mark.parametrize(
    "flags",
    [
        ["--userns", "host"],
        ["--privileged"],
        ["--network", "host"],
        ["--pid", "host"],
        ["--ipc", "host"],
        ["--cap-add", "SYS_ADMIN"],
        ["--cap-add", "ALL"],
        ["-u", "70000"],
        ["-v", "/proc:/host"],
        ["-v", "/dev:/host"],
    ],
    ids=" ".join,
)
def test_who_asks_for_something_of_the_host_has_its_users(platform: Instance, flags: list[str]) -> None:
    assert sh(platform, MAP, *flags).split() == HOSTS


def test_a_host_namespace_is_the_hosts(platform: Instance) -> None:
    for flag, kind in (("--pid", "pid"), ("--ipc", "ipc")):
        shown = sh(platform, f"readlink /proc/self/ns/{kind}", flag, "host").strip()
        assert shown == os.readlink(f"/proc/self/ns/{kind}")
    assert "there are host and private" in platform("run", "--pid", "container:x", "box", code=125).err


def test_all_of_that_can_be_had_in_a_user_namespace_if_it_is_asked_for(platform: Instance) -> None:
    for flags in (["--privileged"], ["--network", "host"], ["--pid", "host"], ["--cap-add", "SYS_ADMIN"]):
        assert sh(platform, MAP, "--userns", "private", *flags).split() != HOSTS, flags
    script = "mount -t tmpfs none /tmp && touch /tmp/x && echo mounted; umount /sys 2>&1; head -c1 /proc/kcore 2>&1"
    shown = sh(platform, script, "--userns", "private", "--privileged", code=1)
    assert shown.startswith("mounted\n")
    assert "can't unmount /sys" in shown


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["-v", "/proc:/host"], "/proc, or something mounted in it, cannot be id-mapped"),
        (["-u", "70000"], "user or group 70000 is beyond the 65536 of a range"),
    ],
)
def test_what_cannot_be_is_refused_by_name_when_it_is_asked_for(
    platform: Instance, flags: list[str], reason: str
) -> None:
    failed = platform("run", "--rm", "--userns", "private", *flags, "box", "true", code=125)
    assert f"the container cannot have users of its own: {reason}" in failed.err
    assert "there are host and private" in platform("run", "--userns", "mine", "box", "true", code=125).err


def test_a_volume_and_a_directory_of_the_host_have_the_same_owners_for_all(platform: Instance, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "given").write_text("x")
    (tmp_path / "given").chmod(0o600)
    mounts = ("-v", f"{tmp_path}:/host", "-v", "data:/data")
    sh(
        platform,
        "cat /host/given && echo 1 >/host/a && chown alice /host/a && echo 2 >/data/b && chown 5:6 /data/b",
        *mounts,
    )
    assert (tmp_path / "a").stat().st_uid == 1000
    for users in ("host", ""):
        flags = ("--userns", users) if users else ()
        assert sh(platform, "stat -c %u:%g /host/given /host/a /data/b", *mounts, *flags).split() == [
            "0:0", "1000:0", "5:6",
        ]  # fmt: skip
    assert sh(platform, "cat /host/given 2>&1; echo mine >/host/a", *mounts, "-u", "alice").endswith("denied\n")
    assert (tmp_path / "a").read_text() == "mine\n"


def test_a_read_only_root_and_memory_belong_to_it_too(platform: Instance) -> None:
    script = "stat -c %u / /mem /dev/shm; echo x >/mem/f && stat -c %u /mem/f; touch /no 2>&1"
    shown = sh(platform, script, "--read-only", "--tmpfs", "/mem", code=1).splitlines()
    assert shown[:4] == ["0", "0", "0", "0"]
    assert "Read-only file system" in shown[4]


def test_a_device_works_for_its_users(platform: Instance) -> None:
    script = "stat -c %u:%g:%a /dev/nothing && echo x >/dev/nothing && echo wrote"
    assert sh(platform, script, "--device", "/dev/null:/dev/nothing:rw", "-u", "alice").split() == ["0:0:666", "wrote"]
    assert "invalid device" in platform("run", "--device", "null", "box", code=125).err


def test_what_it_wrote_is_its_own_after_a_restart_and_a_crash_of_the_daemon(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel(
        "run", "--name", "c", "box", "sh", "-c", f"{MAP}; touch /f; chmod 600 /f; chown alice /home /f; stat -c %u /f"
    )
    before = kestrel.inspect("c")["first_id"]
    kestrel("run", "-d", "--name", "other", "box", "sleep", "600")
    kestrel.kill_daemon()
    kestrel("start", "c")
    wait_until(lambda: kestrel.inspect("c")["state"] == "exited")
    first, second = kestrel("logs", "c").out.split()[:3], kestrel("logs", "c").out.split()[4:7]
    assert first == second == ["0", str(before), "65536"]
    assert kestrel("logs", "c").out.split()[7] == "1000"
    firsts = [kestrel.inspect(kestrel("run", "-d", "box", "true").out.strip())["first_id"] for _ in range(5)]
    assert len({*firsts, before, kestrel.inspect("other")["first_id"]}) == 7


def test_a_container_of_before_keeps_the_hosts_users(platform: Instance) -> None:
    """One that was made with the host's users has files of theirs, and is started with them again."""
    platform("run", "--name", "old", "--userns", "host", "box", "sh", "-c", f"{MAP}; touch /f; stat -c %u /f")
    platform("start", "old")
    wait_until(lambda: platform.inspect("old")["state"] == "exited")
    assert platform("logs", "old").out.split() == [*HOSTS, "0"] * 2


def test_a_layer_has_the_images_owners_and_rights_whatever_users_its_step_had(platform: Instance) -> None:
    platform.build(
        "owned",
        "FROM box\n"
        "RUN cat /proc/self/uid_map >/map && mkdir /d && touch /d/root /d/alice /d/suid /d/big"
        " && chown alice:wheel /d/alice && chown 1000 /d/suid && chmod 4755 /d/suid && chown 65534:65534 /d/big\n"
        "WORKDIR /made/here\n"
        "USER alice\n"
        "RUN cat /etc/passwd >/dev/null; touch /home/none 2>/dev/null; id -u >/tmp/who\n"
        "WORKDIR /by/run\n",
    )
    for flags in ([], ["--userns", "host"]):
        script = "stat -c %u:%g:%a /d/root /d/alice /d/suid /d/big /made/here /by/run /tmp/who; cat /tmp/who"
        shown = platform("run", "--rm", *flags, "owned", "sh", "-c", script).out.split()
        assert shown == [
            "0:0:644", "1000:10:644", "1000:0:4755", "65534:65534:644", "0:0:755", "1000:1000:755",
            "1000:1000:644", "1000",
        ]  # fmt: skip
    assert platform("run", "--rm", "owned", "cat", "/map").out.split() != HOSTS


def test_what_is_committed_and_exported_has_the_containers_owners(platform: Instance, tmp_path: Path) -> None:
    platform("run", "--name", "wrote", "box", "sh", "-c", "touch /r /a && chown alice:wheel /a && chmod 2755 /a")
    platform("commit", "wrote", "kept")
    for flags in ([], ["--userns", "host"]):
        shown = platform("run", "--rm", *flags, "kept", "stat", "-c", "%u:%g:%a", "/r", "/a").out
        assert shown.split() == ["0:0:644", "1000:10:2755"]
    platform("export", "-o", str(tmp_path / "tar"), "wrote")
    with tarfile.open(tmp_path / "tar") as tar:
        owners = {name: (tar.getmember(name).uid, tar.getmember(name).gid) for name in ("r", "a")}
    assert owners == {"r": (0, 0), "a": (1000, 10)}


def test_a_step_that_is_shown_a_stage_of_several_layers_keeps_its_users(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM box AS a\nRUN mkdir /d && echo hi > /d/f && chown 1000:50 /d/f\nRUN echo more > /d/g\nFROM box\n"
        "RUN --mount=from=a,source=/d,target=/m --mount=from=a,source=/d/f,target=/f "
        "cat /proc/self/uid_map /m/g /f; stat -c %u:%g /m/f; ! touch /m/x 2>&1\n"
    )
    answer = platform("build", "--no-cache", str(tmp_path))
    said = [line.partition("]   ")[2] for line in answer.err.splitlines() if "]   " in line]
    assert said[0].split()[1:] != ["0", "4294967295"]
    assert said[1:] == ["more", "hi", "1000:50", "touch: /m/x: Read-only file system"]


@pytest.mark.parametrize(
    "line",
    [
        "COPY --chown=70000:80000 f /f",
        "FROM box AS a\nCOPY --chown=70000:80000 f /f\nFROM box\nCOPY --from=a /f /f",
        "RUN --mount=type=cache,target=/c,uid=70000,gid=80000 touch /c/x && cp -p /c/x /f; chown 70000:80000 /f",
        "USER 70000:80000\nRUN touch /tmp/f\nUSER root\nRUN mv /tmp/f /f",
    ],
)
def test_a_step_after_a_user_beyond_the_range_works_with_his_files(
    platform: Instance, tmp_path: Path, line: str
) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "Dockerfile").write_text(f"FROM box\n{line}\nRUN chmod 640 /f && stat -c %u:%g:%a /f\n")
    answer = platform("build", "--no-cache", str(tmp_path))
    assert "70000:80000:640" in answer.err
    assert "has the host's users: the Dockerfile names one" in answer.err


def test_a_step_that_makes_a_user_beyond_the_range_is_told_how(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN touch /f && chown 70000 /f\n")
    failed = platform("build", str(tmp_path), code=1)
    assert "build with --userns host" in failed.err
    platform("build", "--userns", "host", str(tmp_path))
    assert "there is host" in platform("build", "--userns", "mine", str(tmp_path), code=2).err
