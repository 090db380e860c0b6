"""What a container sees of the world: itself, and nothing of the host."""

import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.linux.capabilities import BITS, effective
from kestrel.oci.runtime_defaults import DEFAULT_CAPABILITIES

pytestmark = pytest.mark.root


async def test_the_process_is_pid_1_and_sees_no_other(box: Any) -> None:
    assert (await box.script("echo $$; ls -d /proc/[0-9]*")).split() == ["1", "/proc/1"]


async def test_every_namespace_is_its_own(box: Any) -> None:
    kinds = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    inside = (await box.script(f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done")).split()
    outside = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert not set(inside) & set(outside)


async def test_containers_of_a_sandbox_share_network_ipc_and_uts(box: Any) -> None:
    pids = [await box.start(name, box.spec("sleep", "60")) for name in ("a", "b")]
    first, second = (
        {k: os.readlink(f"/proc/{pid}/ns/{k}") for k in ("net", "ipc", "uts", "mnt", "pid")} for pid in pids
    )
    assert [kind for kind in first if first[kind] == second[kind]] == ["net", "ipc", "uts"]


async def test_the_hostname_is_the_sandbox_s(box: Any) -> None:
    assert await box.script("hostname") == "box\n"


async def test_loopback_is_up(box: Any) -> None:
    assert "127.0.0.1" in await box.script("ip addr show lo")


async def test_only_the_three_standard_descriptors_are_open(box: Any) -> None:
    # the shell's own script descriptor does not exist with -c; ls adds the directory it lists
    assert (await box.script("exec ls /proc/self/fd")).split() == ["0", "1", "2", "3"]


async def test_dev_has_the_devices_and_links_of_the_specification(box: Any) -> None:
    names = set((await box.script("ls /dev")).split())
    assert names == set("fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split())
    assert await box.script("echo x > /dev/null; head -c 3 /dev/zero | wc -c; readlink /dev/ptmx") == "3\npts/ptmx\n"


async def test_masked_files_are_empty_and_masked_directories_too(box: Any) -> None:
    output = await box.script("wc -c < /proc/keys; wc -c < /proc/timer_list; ls /proc/acpi /sys/firmware | grep -v :")
    assert output.split() == ["0", "0"]


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/core_pattern", "/proc/irq/default_smp_affinity", "/sys/kernel/profiling"]
)
async def test_kernel_settings_cannot_be_written(box: Any, path: str) -> None:
    assert "Read-only file system" in await box.script(f"echo x 2>&1 > {path} || true")


async def test_capabilities_are_the_default_set_and_none_inheritable(box: Any) -> None:
    sets = dict(line.split() for line in (await box.script("grep ^Cap /proc/self/status")).splitlines())
    assert sets["CapInh:"] == sets["CapAmb:"] == "0" * 16
    assert int(sets["CapEff:"], 16).bit_count() == len(DEFAULT_CAPABILITIES)
    assert sets["CapEff:"] == sets["CapPrm:"] == sets["CapBnd:"]


async def test_capabilities_that_the_machine_withholds_are_named(box: Any) -> None:
    missing = [name for name, bit in BITS.items() if not bit & effective()]
    spec = box.spec("true")
    wanted = ["CAP_CHOWN", *missing]
    spec["process"]["capabilities"] = {"bounding": wanted, "effective": wanted, "permitted": wanted}
    warnings: list[str] = []
    await box.start("c", spec, warn=warnings.append)
    await box.ended("c")
    said = f"capabilities that this machine withholds were not given: {' '.join(missing)}"
    assert warnings == ([said] if missing else [])


async def test_seccomp_is_on_and_refuses_what_administers_the_machine(box: Any) -> None:
    assert "Seccomp:\t2" in await box.script("grep Seccomp: /proc/self/status")
    assert "Operation not permitted" in await box.script("unshare -U true 2>&1 || true")
    assert "permission denied" in await box.script("mount -t tmpfs x /tmp 2>&1 || true")


async def test_no_new_privileges_is_set_when_asked_for(box: Any) -> None:
    spec = box.spec("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status")
    spec["process"]["noNewPrivileges"] = True
    assert (await box.run("c", spec))[1].split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]


async def test_user_and_groups_are_exactly_those_of_the_spec(box: Any) -> None:
    spec = box.spec("id; cat /proc/self/status | grep -E 'CapEff|Groups'; echo ok > /dev/stdout; echo $HOME")
    spec["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [2000]}
    code, output = await box.run("c", spec)
    assert code == 0
    assert output.splitlines()[0] == "uid=1000 gid=1001 groups=2000"
    assert "CapEff:\t0000000000000000" in output
    assert output.endswith("ok\n/\n")


async def test_the_root_is_writable_and_the_layer_stays_as_it_was(box: Any) -> None:
    await box.script("echo changed > /etc/passwd; rm /bin/ls; touch /new")
    assert (box.layer / "etc/passwd").read_text().startswith("root:")
    assert not (box.layer / "new").exists()
    assert (box.layer / "bin/ls").is_symlink()


async def test_a_read_only_root_refuses_writes_but_dev_shm_takes_them(box: Any) -> None:
    spec = box.spec("touch /x 2>&1; touch /dev/shm/x && echo fine")
    spec["root"] = {"path": "", "readonly": True}
    assert (await box.run("c", spec))[1] == "touch: /x: Read-only file system\nfine\n"


async def test_the_working_directory_is_made(box: Any) -> None:
    spec = box.spec("pwd")
    spec["process"]["cwd"] = "/srv/app/deep"
    assert (await box.run("c", spec))[1] == "/srv/app/deep\n"


async def test_a_working_directory_through_a_leaked_descriptor_is_refused(box: Any) -> None:
    for number in (3, 4, 5, 7, 9, 12):
        spec = box.spec("pwd")
        spec["process"]["cwd"] = f"/proc/self/fd/{number}"
        with pytest.raises(KestrelError):
            await box.create(f"c{number}", spec)


async def test_bind_mounts_show_host_files_read_only_when_asked(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from the host\n")
    spec = box.spec("cat /data/f /one; echo x 2>&1 > /data/g; echo y > /rw/h; cat /rw/f")
    spec["mounts"] += [
        {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["rbind", "ro"]},
        {"destination": "/one", "type": "bind", "source": str(tmp_path / "f"), "options": ["bind", "ro"]},
        {"destination": "/rw", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rw"]},
    ]
    _, output = await box.run("c", spec)
    assert output.splitlines() == [
        "from the host",
        "from the host",
        "sh: can't create /data/g: Read-only file system",
        "from the host",
    ]
    assert (tmp_path / "h").read_text() == "y\n"
    assert not (tmp_path / "g").exists()


async def test_a_missing_bind_source_is_named(box: Any) -> None:
    spec = box.spec("true")
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such/place", "options": ["bind"]})
    with pytest.raises(InvalidArgument, match="bind source path does not exist: /no/such/place"):
        await box.create("c", spec)


async def test_a_symlink_in_the_image_cannot_lead_a_mount_out_of_the_root(box: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    rootfs = box.rootfs("c")
    Path(rootfs.upper, "data").symlink_to(f"../../../../../..{victim}")
    spec = box.spec("ls -d /data/sub")
    spec["mounts"].append({"destination": "/data/sub", "type": "tmpfs", "options": []})
    await box.create("c", spec, rootfs=rootfs)
    assert list(victim.iterdir()) == []
    assert Path(f"{rootfs.upper}{victim}/sub").is_dir()  # what the link names is made, inside the root


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
async def test_kernel_filesystems_are_not_mounted_through_a_link_of_the_image(box: Any, name: str) -> None:
    rootfs = box.rootfs("c")
    Path(rootfs.upper, "tmp").mkdir(exist_ok=True)
    if name == "proc":
        os.mknod(Path(rootfs.upper, name), 0o020000, 0)  # overlay's mark that the lower /proc is gone
        Path(rootfs.upper, name).unlink()
    Path(rootfs.upper, name).symlink_to("tmp/fake")
    (Path(rootfs.upper) / "tmp/fake").mkdir()
    with pytest.raises(KestrelError, match=r"symbolic link|Too many levels"):
        await box.create("c", box.spec("true"), rootfs=rootfs)


async def test_a_mount_inside_proc_is_refused(box: Any, tmp_path: Path) -> None:
    spec = box.spec("true")
    spec["mounts"].append(
        {"destination": "/proc/self/attr", "type": "bind", "source": str(tmp_path), "options": ["bind"]}
    )
    with pytest.raises(InvalidArgument, match="inside /proc"):
        await box.create("c", spec)


async def test_mount_propagation_reaches_a_slave_and_never_the_host(box: Any, tmp_path: Path) -> None:
    await box.script("true")
    before = Path("/proc/self/mountinfo").read_text()
    spec = box.spec("grep -c . /proc/self/mountinfo")
    spec["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rslave"]}
    )
    await box.run("c", spec)
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("dot", [".", "/"])
async def test_a_sysctl_of_the_host_is_refused_and_one_of_the_sandbox_is_set(box: Any, dot: str) -> None:
    with pytest.raises(InvalidArgument, match="would change the host"):
        await box.create("c", box.spec("true", sysctl={f"kernel{dot}core_pattern": "x"}))
    output = await box.script("cat /proc/sys/net/ipv4/ip_forward", sysctl={f"net{dot}ipv4{dot}ip_forward": "1"})
    assert output == "1\n"


@pytest.mark.parametrize(
    "name", ["kernel.shm_rmid_forced=1+kernel.core_pattern", "net/../kernel.x", "net..x", "/net", ""]
)
async def test_a_sysctl_name_that_is_no_name_is_refused(box: Any, name: str) -> None:
    with pytest.raises(InvalidArgument, match="not a dotted name"):
        await box.create("c", box.spec("true", sysctl={name: "1"}))


async def test_rlimits_are_set(box: Any) -> None:
    spec = box.spec("ulimit -n; ulimit -c")
    spec["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    assert (await box.run("c", spec))[1] == "100\n0\n"


async def test_an_rlimit_that_cannot_be_raised_is_held_and_said(box: Any) -> None:
    spec = box.spec("ulimit -n")
    spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 2**31, "hard": 2**31}]
    warnings: list[str] = []
    try:
        await box.start("c", spec, warn=warnings.append)
    except KestrelError as error:
        pytest.skip(f"this machine may raise limits, and the kernel's own ceiling refused: {error}")
    await box.ended("c")
    assert any("RLIMIT_NOFILE" in warning and "CAP_SYS_RESOURCE" in warning for warning in warnings)


async def test_devices_that_are_not_allowed_cannot_be_opened(box: Any) -> None:
    output = await box.script("mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk 2>&1 || true")
    assert "Operation not permitted" in output


async def test_nothing_of_the_host_s_environment_is_there(box: Any) -> None:
    names = {line.split("=")[0] for line in (await box.script("env")).splitlines()}
    assert names <= {"PATH", "HOME", "PWD", "SHLVL", "HOSTNAME"}


async def test_the_interpreter_cannot_be_written_through_proc_self_exe(box: Any) -> None:
    # CVE-2019-5736. From here, with every right of the host's root, it is a file that cannot be written.
    with pytest.raises(OSError, match="Read-only file system"):
        os.open(f"/proc/{box.shim.pid}/exe", os.O_WRONLY)
    # And as the published attack does it: the runtime's own binary as the container's program, then held open.
    host = Path(os.path.realpath("/proc/self/exe"))
    before = host.read_bytes()
    spec = box.spec("/proc/self/exe", "--version")
    try:
        await box.run("c", spec)
    except KestrelError:
        pass  # its libraries are not in this image: it could not even run
    await box.script("for p in /proc/[0-9]*/exe; do echo x >> $p; done 2>/dev/null; true")
    assert host.read_bytes() == before


async def test_own_cgroups_are_visible_read_only_and_no_others(box: Any) -> None:
    output = await box.script(
        "grep -c kestrel /proc/self/cgroup; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x 2>&1; ls /sys/fs/cgroup"
    )
    assert output.startswith("0\n")
    assert "Read-only file system" in output


async def test_a_shared_memory_file_of_one_container_is_not_the_other_s(box: Any) -> None:
    await box.script("touch /dev/shm/x")
    assert await box.script("ls /dev/shm") == ""
