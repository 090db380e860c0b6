"""Files of /proc, /sys and /dev: hidden ones that shine through, and false ones that are taken for the kernel's."""

import os
import stat
from pathlib import Path

import pytest

from kestrel.testing.runtimes import Bundle, Runtime

pytestmark = pytest.mark.root

SETTING = "sys/kernel/hostname"
"""Stands for core_pattern: a file of the kernel's that writing to does no harm, since it is the container's own."""


# --- masks ----------------------------------------------------------------------------------------------------------

MASKED = "/proc/interrupts"
LOOK = f"( stat -c %t:%T {MASKED}; head -c 20 {MASKED}; echo hacked >{MASKED}; hostname ) >/out"


def looked(runtime: Runtime, bundle: Bundle) -> None:
    """A masked file is the null device, and nothing else; to refuse the container is as good."""
    bundle.spec["hostname"] = "box"
    answer = runtime.run(bundle.shell(LOOK))
    out = bundle.rootfs / "out"  # what a runtime takes for standard output may be the attack's as well
    assert answer.code != 0 or out.read_text() == "1:3\nbox\n"


@pytest.mark.threat(4, "CVE-2025-31133: masks out of the container's own files")
@pytest.mark.parametrize("target", [f"/proc/{SETTING}", "/nowhere", "/etc/passwd"])
def test_a_mask_is_not_made_of_the_image_s_null_device(runtime: Runtime, bundle: Bundle, target: str) -> None:
    bundle.without_mounts("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    (bundle.rootfs / "dev/null").symlink_to(target)
    looked(runtime, bundle)


@pytest.mark.threat(4, "CVE-2025-31133: masks out of the container's own files")
@pytest.mark.parametrize("target", [f"/proc/{SETTING}", "/nowhere"])
def test_a_mask_is_not_made_of_a_volume_s_null_device(runtime: Runtime, bundle: Bundle, target: str) -> None:
    volume = bundle.home / "volume"
    volume.mkdir()
    (volume / "null").symlink_to(target)
    bundle.without_mounts("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    bundle.bind(volume, "/dev")
    looked(runtime, bundle)


# --- /proc and /sys that are none -----------------------------------------------------------------------------------


@pytest.mark.threat(6, "CVE-2025-52881, CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: false /proc")
@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["evil", "/evil", "etc/../evil", "/proc/self", "."])
def test_kernel_filesystems_are_not_mounted_through_a_link(
    runtime: Runtime, bundle: Bundle, name: str, target: str
) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / "evil").mkdir()
    (bundle.rootfs / name).symlink_to(target)
    kind = "proc" if name == "proc" else "sysfs"
    answer = runtime.run(bundle.shell(f"grep ' - {kind} ' /proc/self/mountinfo /evil/self/mountinfo /self/mountinfo"))
    assert answer.code != 0
    assert f" /{name} " not in answer.out
    assert kind not in answer.out


def false_proc(bundle: Bundle) -> Path:
    """Return a directory that looks like the parts of /proc that a runtime writes to."""
    volume = bundle.home / "proc"
    for name in ("self/attr", "thread-self/attr", "self/fd", "sys/net/ipv4", "sys/kernel"):
        (volume / name).mkdir(parents=True)
    for name in ("self/attr/exec", "thread-self/attr/exec", "self/oom_score_adj", "sys/net/ipv4/ip_default_ttl"):
        (volume / name).touch()
    return volume


def written(volume: Path) -> dict[str, str]:
    found = {str(path.relative_to(volume)): path.read_text() for path in volume.rglob("*") if path.is_file()}
    return {name: text for name, text in found.items() if text}


@pytest.mark.threat(6, "CVE-2025-52881, CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: false /proc")
@pytest.mark.parametrize("how", ["image", "volume", "volume over the real one"])
def test_what_is_written_to_the_kernel_is_not_swallowed_by_a_false_proc(
    runtime: Runtime, bundle: Bundle, how: str
) -> None:
    volume = false_proc(bundle)
    if how != "volume over the real one":
        bundle.without_mounts("/proc")
    if how == "image":
        (bundle.rootfs / "proc").rmdir()
        volume = volume.rename(bundle.rootfs / "proc")
    else:
        bundle.bind(volume, "/proc")
    bundle.spec["mounts"].append({"destination": "/real", "type": "proc", "source": "proc"})
    bundle.spec["linux"] |= {"sysctl": {"net.ipv4.ip_default_ttl": "77"}, "readonlyPaths": [], "maskedPaths": []}
    bundle.spec["process"]["oomScoreAdj"] = 321
    answer = runtime.run(bundle.shell("cat /real/sys/net/ipv4/ip_default_ttl /real/self/oom_score_adj"))
    assert not written(volume)
    assert answer.code != 0 or answer.out.split() == ["77", "321"]


@pytest.mark.threat(6, "CVE-2025-52881, CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: false /proc")
def test_a_label_is_not_swallowed_by_a_false_proc(runtime: Runtime, bundle: Bundle) -> None:
    """Where no module is in force the label has to be refused, not taken for set."""
    volume = false_proc(bundle)
    bundle.without_mounts("/proc")
    bundle.bind(volume, "/proc")
    bundle.spec["process"]["apparmorProfile"] = "ktest-none"
    answer = runtime.run(bundle.shell("echo runs unconfined"))
    assert answer.code != 0
    assert not written(volume)


@pytest.mark.threat(6, "CVE-2025-52881, CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: false /proc")
@pytest.mark.parametrize("place", ["/proc/self", "/proc/sys/kernel", "/proc/self/attr", "/etc/../proc/self"])
def test_nothing_of_the_container_s_is_mounted_inside_proc(runtime: Runtime, bundle: Bundle, place: str) -> None:
    bundle.bind(false_proc(bundle), place)
    answer = runtime.run(bundle.shell("echo runs; cat /proc/self/mountinfo"))
    assert answer.code != 0
    assert "runs" not in answer.out


# --- /dev -----------------------------------------------------------------------------------------------------------


@pytest.mark.threat(8, "CVE-2026-41579, CVE-2026-47766: /dev that is a link")
@pytest.mark.parametrize("climb", ["", "../../../../../../../.."])
@pytest.mark.parametrize("mounted", [False, True])
def test_no_device_is_made_outside_through_a_linked_dev(
    runtime: Runtime, bundle: Bundle, outside: Path, climb: str, mounted: bool
) -> None:
    before = sorted(os.listdir(outside))
    if not mounted:
        bundle.without_mounts("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(f"{climb}{outside}")
    bundle.spec["linux"]["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3}]
    runtime.run(bundle.shell("true"))
    assert sorted(os.listdir(outside)) == before


@pytest.mark.threat(8, "CVE-2026-41579, CVE-2026-47766: /dev that is a link")
@pytest.mark.parametrize("path", ["/dev/../../../../../..{outside}/mine", "/link/mine", "/dev/link/mine"])
def test_no_device_is_made_outside_through_its_path(runtime: Runtime, bundle: Bundle, outside: Path, path: str) -> None:
    (bundle.rootfs / "link").symlink_to(outside)
    bundle.without_mounts("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    (bundle.rootfs / "dev/link").symlink_to(outside)
    path = path.format(outside=outside)
    bundle.spec["linux"]["devices"] = [{"path": path, "type": "c", "major": 1, "minor": 3}]
    runtime.run(bundle.shell("true"))
    assert os.listdir(outside) == ["secret"]


@pytest.mark.threat(8, "CVE-2026-41579, CVE-2026-47766: /dev that is a link")
def test_a_device_s_mode_and_owner_are_not_given_to_what_a_link_names(
    runtime: Runtime, bundle: Bundle, outside: Path
) -> None:
    bundle.without_mounts("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    (bundle.rootfs / "dev/mine").symlink_to(outside / "secret")
    device = {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o777, "uid": 1000, "gid": 1000}
    bundle.spec["linux"]["devices"] = [device]
    runtime.run(bundle.shell("true"))
    info = (outside / "secret").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (0, 0o644)


# --- sysctls --------------------------------------------------------------------------------------------------------


@pytest.mark.threat(23, "CVE-2022-0811: settings of the host by a crooked name")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.shm_rmid_forced", "1+kernel.ktest=x"),
        ("kernel.shm_rmid_forced=1+kernel.hung_task_panic", "0"),
        ("kernel.hung_task_panic", "0"),
        ("kernel/hung_task_panic", "0"),
        ("net.ipv4.ip_default_ttl/../../../kernel/hung_task_panic", "0"),
        ("net/../kernel/hung_task_panic", "0"),
        ("net....kernel.hung_task_panic", "0"),
        ("fs.mqueue/../../kernel/hung_task_panic", "0"),
        ("vm.overcommit_ratio", "50"),
        ("", "0"),
    ],
)
def test_a_setting_that_is_not_the_container_s_is_refused(
    runtime: Runtime, bundle: Bundle, name: str, value: str
) -> None:
    bundle.spec["linux"]["sysctl"] = {name: value}
    answer = runtime.run(bundle.shell("echo runs"))
    assert answer.code != 0
    assert "runs" not in answer.out


@pytest.mark.threat(23, "CVE-2022-0811: settings of the host by a crooked name")
@pytest.mark.parametrize(
    ("kind", "name"),
    [("network", "net.ipv4.ip_default_ttl"), ("ipc", "kernel.shm_rmid_forced"), ("ipc", "fs.mqueue.msg_max")],
)
def test_a_setting_is_refused_without_the_namespace_that_makes_it_the_container_s(
    runtime: Runtime, bundle: Bundle, kind: str, name: str
) -> None:
    file = Path("/proc/sys") / name.replace(".", "/")
    before = file.read_text()
    bundle.spec["linux"]["sysctl"] = {name: before.strip()}
    kept = [entry for entry in bundle.spec["linux"]["namespaces"] if entry["type"] != kind]
    bundle.spec["linux"]["namespaces"] = kept
    assert runtime.run(bundle.shell("true")).code != 0


# --- control groups -------------------------------------------------------------------------------------------------

MAPPED = [{"containerID": 0, "hostID": 1_800_000, "size": 65536}]

WRITE = """
for d in $(find /sys/fs/cgroup -type d -maxdepth 3); do
    [ -e $d/cgroup.procs ] || continue
    mkdir $d/mine 2>/dev/null && echo made $d/mine && rmdir $d/mine
    for f in notify_on_release release_agent cgroup.procs cgroup.subtree_control; do
        [ -e $d/$f ] && ( : >>$d/$f ) 2>/dev/null && echo opened $d/$f
    done
done
umount /sys/fs/cgroup/* /sys/fs/cgroup && echo unmounted
mount -o remount,rw,bind /sys/fs/cgroup && echo remounted
exit 0
"""


@pytest.mark.threat(17, "CVE-2023-25809: control groups that can be written to")
@pytest.mark.parametrize("users", ["the host's users", "its own users"])
@pytest.mark.parametrize("groups", ["the host's groups", "its own groups"])
def test_control_groups_are_read_only_when_they_are_to_be(
    runtime: Runtime, bundle: Bundle, users: str, groups: str
) -> None:
    if users == "its own users":
        bundle.spec["linux"]["namespaces"].append({"type": "user"})
        bundle.spec["linux"] |= {"uidMappings": MAPPED, "gidMappings": MAPPED}
        bundle.home.chmod(0o755)
    if groups == "the host's groups":
        namespaces = bundle.spec["linux"]["namespaces"]
        namespaces[:] = [entry for entry in namespaces if entry["type"] != "cgroup"]
    answer = runtime.run(bundle.shell(WRITE))
    assert answer.code == 0, answer.err
    assert answer.out == ""


ESCAPE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNS, NEWCGROUP = 0x10000000, 0x20000, 0x2000000
me = os.getuid()
def set_agent(top):
    try:
        # the exploit writes a program's path here, which the host's root then runs; we write what is there
        with open(f"{top}/release_agent", "r+b", buffering=0) as file:
            file.write(file.read() or b"\\n")
        print("release agent at", top)
    except OSError:
        pass
for flags in (0, NEWCGROUP, NEWUSER, NEWUSER | NEWNS | NEWCGROUP):
    if flags and libc.unshare(flags) == 0:
        print("unshared", hex(flags))
        if flags & NEWUSER:
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {me} 1"), ("gid_map", f"0 {me} 1")):
                open(f"/proc/self/{name}", "w").write(text)
    for controller in filter(None, (line.split(":")[1] for line in open("/proc/self/cgroup"))):
        top = f"/tmp/{flags}/{controller}"
        os.makedirs(top)
        if libc.mount(b"cgroup", top.encode(), b"cgroup", 0, controller.replace("name=", "none,name=").encode()) == 0:
            print("mounted", controller)
        set_agent(top)
        set_agent(f"/sys/fs/cgroup/{controller}")
"""


@pytest.mark.threat(15, "CVE-2022-0492: release_agent")
@pytest.mark.parametrize("groups", ["the host's groups", "its own groups"])
@pytest.mark.parametrize("confined", ["by the profile", "by capabilities alone"])
def test_no_release_agent_can_be_set(runtime: Runtime, bundle: Bundle, confined: str, groups: str) -> None:
    bundle.python(ESCAPE)
    if groups == "the host's groups":
        namespaces = bundle.spec["linux"]["namespaces"]
        namespaces[:] = [entry for entry in namespaces if entry["type"] != "cgroup"]
    if confined == "by capabilities alone":
        del bundle.spec["linux"]["seccomp"]
    answer = runtime.run(bundle)
    assert answer.code == 0, answer.err
    assert "release agent" not in answer.out
    assert confined != "by the profile" or answer.out == ""
