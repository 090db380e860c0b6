"""What a container's config.json asks of `kestrel-runtime`, looked up inside the container."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kestrel.runtime.scheduling import numbers

pytestmark = pytest.mark.root

KINDS = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]


@pytest.mark.parametrize(
    ("changes", "script", "seen"),
    [
        ({"process": {"capabilities": {"inheritable": ["CAP_KILL"]}}}, "grep CapInh /proc/self/status", "20"),
        ({"process": {"user": {"uid": 0, "gid": 7, "additionalGids": [8]}}}, "grep Groups: /proc/self/status", "8"),
        ({"process": {"user": {"uid": 0, "gid": 7}}}, "grep Groups: /proc/self/status", "Groups:"),
        ({"linux": {"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0"}}}, "cat /proc/self/numa_maps", "ave:0"),
        ({}, "echo $(($(cat /sys/class/net/lo/flags) & 1))", "1"),
        ({"linux": {"namespaces": [*KINDS, {"type": "user"}]}}, "cat /proc/self/uid_map", f"{2**32 - 1}"),
        ({"domainname": "a.b", "linux": {"sysctl": {"kernel.domainname": "a.b"}}}, "domainname; echo 1", "1"),
    ],
)
def test_what_a_spec_asks_for_is_so(runtime: Any, changes: dict[str, Any], script: str, seen: str) -> None:
    runtime.spec("sh", "-c", script, **changes)
    first = runtime.ok("run", "--bundle", str(runtime.bundle), "one").splitlines()[0].split()
    assert any(word.endswith(seen) for word in first), first


@pytest.mark.parametrize(
    ("options", "script", "seen"),
    [
        (["copy-symlink"], "readlink /x", "nowhere"),
        (["src-nofollow", "dest-nofollow"], "readlink /x", "nowhere"),
        (["dest-nofollow"], "cat /x", "text"),
    ],
)
def test_symbolic_links_are_mounted_as_such_when_asked_for(
    runtime: Any, options: list[str], script: str, seen: str
) -> None:
    (runtime.home / "file").write_text("text")
    (runtime.home / "link").symlink_to("nowhere")
    if "dest-nofollow" in options:
        (runtime.bundle / "rootfs/x").symlink_to("elsewhere")
    source = runtime.home / ("file" if "cat" in script else "link")
    mount = {"destination": "/x", "source": str(source), "options": ["bind", *options]}
    runtime.spec("sh", "-c", script)
    spec = json.loads((runtime.bundle / "config.json").read_text())
    spec["mounts"].append(mount)
    (runtime.bundle / "config.json").write_text(json.dumps(spec))
    assert runtime.ok("run", "--bundle", str(runtime.bundle), "one").strip() == seen


def test_the_network_and_the_names_of_a_container_with_users_of_its_own_are_its_own_root_s(runtime: Any) -> None:
    ids = [{"containerID": 0, "hostID": 700000, "size": 65536}]
    linux = {"namespaces": [*KINDS, {"type": "user"}], "uidMappings": ids, "gidMappings": ids, "seccomp": None}
    may = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
    rights = dict.fromkeys(("bounding", "effective", "permitted"), may)
    script = "hostname changed && hostname && ip addr add 10.9.8.7/32 dev lo && ip addr show lo | grep -c 10.9.8.7"
    runtime.spec("sh", "-c", script, linux=linux, process={"capabilities": rights})
    assert runtime.ok("run", "--bundle", str(runtime.bundle), "one").split() == ["changed", "1"]


def test_a_spec_has_any_name_and_a_container_may_have_no_group(runtime: Any) -> None:
    runtime.spec("cat", "/proc/self/cgroup")
    (runtime.bundle / "config.json").rename(runtime.bundle / "other.json")
    words = ("run", "--bundle", str(runtime.bundle), "--config", "other.json", "one")
    assert runtime.cgroup not in runtime.ok("--cgroup-manager", "disabled", *words)
    assert runtime.cgroup in runtime.ok("--cgroup-manager", "cgroupfs", *words)


@pytest.mark.parametrize("text", ["", "{", '{"root"', '{"root": [}', "[]"])
def test_a_config_that_is_none_is_named(runtime: Any, text: str) -> None:
    (runtime.bundle / "config.json").write_text(text)
    done = runtime("create", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 1
    assert "config.json is not" in done.stderr


def test_a_mount_on_the_root_is_the_root(runtime: Any) -> None:
    shutil.copytree(runtime.bundle / "rootfs", runtime.home / "other", symlinks=True)
    (runtime.home / "other/who").write_text("other")
    mount = {"destination": "/", "type": "bind", "source": str(runtime.home / "other"), "options": ["bind"]}
    runtime.spec("cat", "/who")
    spec = json.loads((runtime.bundle / "config.json").read_text())
    spec["mounts"].insert(0, mount)
    (runtime.bundle / "config.json").write_text(json.dumps(spec))
    assert runtime.ok("run", "--bundle", str(runtime.bundle), "one") == "other"


def test_a_device_does_not_replace_what_the_image_has_in_its_place(runtime: Any) -> None:
    (runtime.bundle / "rootfs/precious").write_text("text")
    os.mkfifo(runtime.bundle / "rootfs/there", 0o600)
    matching = {"path": "/there", "type": "p", "major": 1, "minor": 2, "uid": 7}
    runtime.spec("true", linux={"devices": [matching]})
    runtime.ok("run", "--bundle", str(runtime.bundle), "one")
    assert (runtime.bundle / "rootfs/there").stat().st_uid == 0
    runtime.spec("true", linux={"devices": [{"path": "/precious", "type": "c", "major": 1, "minor": 5}]})
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 1
    assert "cannot make device /precious (c 1:5): something else is there" in done.stderr
    assert (runtime.bundle / "rootfs/precious").read_text() == "text"


def test_a_default_device_replaces_what_the_image_has_in_its_place(runtime: Any) -> None:
    (runtime.bundle / "rootfs/dev").mkdir()
    (runtime.bundle / "rootfs/dev/null").write_text("text")
    runtime.spec("stat", "-c", "%F", "/dev/null", mounts=[{"destination": "/proc", "type": "proc", "source": "proc"}])
    assert runtime.ok("run", "--bundle", str(runtime.bundle), "one") == "character special file\n"


def test_a_spec_for_callers_without_root_has_users_of_its_own_and_no_network(runtime: Any) -> None:
    (runtime.bundle / "config.json").unlink()
    runtime.ok("spec", "--rootless", "--bundle", str(runtime.bundle))
    linux = json.loads((runtime.bundle / "config.json").read_text())["linux"]
    kinds = {entry["type"] for entry in linux["namespaces"]}
    assert "user" in kinds
    assert "network" not in kinds
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]


@pytest.mark.parametrize(("word", "seen"), [("rslave", True), ("rprivate", False), ("rshared", False)])
def test_what_the_host_mounts_in_the_root_is_seen_by_a_slave(runtime: Any, word: str, seen: bool) -> None:
    root = runtime.bundle / "rootfs"
    subprocess.run(["mount", "--bind", "--make-shared", str(root), str(root)], check=True)
    try:
        runtime.spec("sleep", "60", linux={"rootfsPropagation": word})
        runtime.ok("run", "--detach", "--bundle", str(runtime.bundle), "one")
        subprocess.run(["mount", "-t", "tmpfs", "ktest", str(root / "home")], check=True)
        assert (" /home " in runtime.ok("exec", "one", "cat", "/proc/self/mounts")) == seen
        runtime.ok("exec", "--cap", "CAP_SYS_ADMIN", "one", "mount", "-t", "tmpfs", "inner", "/tmp")
        assert "inner" not in Path("/proc/self/mounts").read_text()
    finally:
        runtime("delete", "--force", "one")
        subprocess.run(["umount", "--recursive", str(root)], check=True)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU")
def test_a_container_is_not_bound_to_the_cpus_of_its_caller_but_to_those_of_its_group(runtime: Any) -> None:
    everything = os.sched_getaffinity(0)
    first, *others = sorted(everything)
    look = ("grep", "Cpus_allowed_list", "/proc/self/status")
    os.sched_setaffinity(0, {first})
    try:
        runtime.spec("sleep", "60")
        runtime.ok("run", "--detach", "--bundle", str(runtime.bundle), "one")
        runtime.spec("sleep", "60", linux={"resources": {"cpu": {"cpus": str(others[-1]), "mems": "0"}}})
        shown = runtime.ok("exec", "one", *look)
        assert numbers(shown.split()[-1], "CPUs") == everything
        assert numbers(allowed(runtime.state("one")["pid"]), "CPUs") == everything
        runtime("delete", "--force", "one")
        runtime.ok("run", "--detach", "--bundle", str(runtime.bundle), "two")
        assert runtime.ok("exec", "two", *look).split()[-1] == allowed(runtime.state("two")["pid"]) == str(others[-1])
    finally:
        os.sched_setaffinity(0, everything)


def allowed(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().partition("Cpus_allowed_list:")[2].split()[0]


def test_every_flag_of_a_filesystem_that_is_advertised_can_be_asked_for(runtime: Any) -> None:
    flags = "sync async dirsync mand nomand lazytime nolazytime silent loud iversion noiversion".split()
    assert {*flags} <= {*json.loads(runtime.ok("features"))["mountOptions"]}
    mounts = [
        {"destination": f"/{word or 'empty'}", "type": "tmpfs", "source": "tmpfs", "options": [word]}
        for word in (*flags, "")
    ]
    runtime.spec("true", mounts=[{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts])
    runtime.ok("run", "--bundle", str(runtime.bundle), "one")


def limited(kind: str, limit: int) -> dict[str, Any]:
    return {"process": {"rlimits": [{"type": kind, "soft": limit, "hard": limit}]}}


def joining(kind: str, path: str) -> dict[str, Any]:
    return {
        "linux": {"namespaces": [*(entry for entry in KINDS if entry["type"] != kind), {"type": kind, "path": path}]}
    }


def mounting(**mount: Any) -> dict[str, Any]:
    return {"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, mount]}


RULE = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}
LATER = {"namespaces": [*KINDS, {"type": "time"}], "timeOffsets": {"monotonic": {"secs": 2**62}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (limited("RLIMIT_NOFILE", 3), "too many open files: RLIMIT_NOFILE leaves none for the start of the program"),
        (limited("RLIMIT_AS", 4096), "cannot allocate memory"),
        ({"process": {"user": {"uid": 0, "gid": 0, "additionalGids": [1] * 70000}}}, "additionalGids has 70000 groups"),
        ({"linux": {"devices": [{"path": "/dev/q", "type": "x"}]}}, "/dev/q is of unknown type 'x'"),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [RULE]}}}, "index 6 is not from 0 to 5"),
        (joining("network", "/proc/self/ns/ipc"), "the network namespace /proc/self/ns/ipc cannot be joined"),
        (joining("ipc", "/etc/passwd"), "the ipc namespace /etc/passwd cannot be joined: invalid argument"),
        (joining("ipc", "/absent"), "the ipc namespace /absent cannot be joined: no such file or directory"),
        (joining("pid", "/proc/self/ns/ipc"), "cannot be joined: invalid argument"),
        ({"linux": LATER}, "linux.timeOffsets: the kernel refuses monotonic 4611686018427387904 0"),
        (mounting(destination="/etc/passwd", type="tmpfs"), "cannot mount a directory at /etc/passwd"),
        (mounting(destination="/etc/passwd/x", source="/tmp", options=["bind"]), "cannot mount a directory at /etc"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(runtime: Any, changes: dict[str, Any], said: str) -> None:
    runtime.spec("true", **changes)
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 1
    assert said in done.stderr
