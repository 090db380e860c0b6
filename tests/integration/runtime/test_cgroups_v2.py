"""Control groups of version 2, asked for through our interface and looked up in the kernel's own files.

Machines with version 1 skip this; the guest (`tests/integration/test_guest.py`) has version 2 alone.
"""

import asyncio
import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.linux import cgroups
from kestrel.linux.cgroups import DeviceRule, Group, Limits, device_filter

ROOT = Path(cgroups.ROOT)
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not (ROOT / "cgroup.controllers").exists(), reason="control groups are of version 1 here"),
]

SOURCE = str(Path(cgroups.__file__).parents[3])


@pytest.fixture
def path() -> Iterator[str]:
    name = f"kestrel-test-{secrets.token_hex(4)}"
    yield name
    cgroups.destroy(name)


@pytest.fixture
def group(path: str) -> Group:
    return cgroups.detect().create(f"{path}/a")


def text(group: Group, name: str) -> str:
    return (ROOT / group.path / name).read_text().strip()


def disk() -> str:
    """Return MAJOR:MINOR of a whole disk."""
    for block in sorted(Path("/sys/block").iterdir()):
        if (block / "device").exists():
            return (block / "dev").read_text().strip()
    pytest.skip("there is no disk")


class Inside:
    """A shell in a group, that runs a script when told to."""

    def __init__(self, group: Group, script: str) -> None:
        self.process = subprocess.Popen(
            ["/bin/busybox", "sh", "-c", f"read go\n{script}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        group.attach(self.process.pid)

    def __enter__(self) -> Self:
        return self

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> tuple[int, str]:
        self.go()
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def python(script: str, *arguments: str) -> Any:
    """Run a script in a process with one thread; return the JSON it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"PYTHONPATH": SOURCE, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


# --- limits ---


def test_limits_are_where_the_kernel_reads_them(group: Group) -> None:
    group.limit(
        Limits(
            memory=64 << 20,
            reservation=16 << 20,
            swap=96 << 20,
            shares=2048,
            quota=50000,
            period=200000,
            burst=10000,
            cpus="0",
            mems="0",
            pids=17,
            unified={"memory.high": str(32 << 20)},
        )
    )
    wanted = {
        "memory.max": str(64 << 20),
        "memory.low": str(16 << 20),
        "memory.swap.max": str(32 << 20),
        "memory.high": str(32 << 20),
        "cpu.weight": "174",
        "cpu.max": "50000 200000",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "17",
    }
    assert {name: text(group, name) for name in wanted} == wanted


def test_limits_are_lifted(group: Group) -> None:
    group.limit(Limits(memory=64 << 20, swap=64 << 20, quota=50000, pids=5))
    assert text(group, "memory.swap.max") == "0"
    group.limit(Limits(memory=-1, quota=-1, pids=-1))
    assert [text(group, name) for name in ("memory.max", "memory.swap.max", "pids.max")] == ["max"] * 3
    assert text(group, "cpu.max").startswith("max ")


def test_swap_alone_is_counted_from_the_memory_that_is_allowed_already(group: Group) -> None:
    group.limit(Limits(memory=64 << 20))
    group.limit(Limits(swap=80 << 20))
    assert text(group, "memory.swap.max") == str(16 << 20)


@pytest.mark.parametrize("limits", [Limits(swap=80 << 20), Limits(memory=64 << 20, swap=32 << 20)])
def test_swap_without_memory_or_below_it_is_refused(group: Group, limits: Limits) -> None:
    with pytest.raises(OSError, match=r"memory\.swap\.max"):
        group.limit(limits)


def test_reads_and_writes_of_a_disk_are_limited_and_the_limit_lifted(group: Group) -> None:
    device = disk()
    throttles = (("read_bps_device", f"{device} 1048576"), ("write_iops_device", f"{device} 100"))
    group.limit(Limits(throttles=throttles))
    assert text(group, "io.max") == f"{device} rbps=1048576 wbps=max riops=max wiops=100"
    group.limit(Limits(throttles=(("read_bps_device", f"{device} 0"), ("write_iops_device", f"{device} 0"))))
    assert text(group, "io.max") == ""


def test_weight_of_io_is_converted(group: Group) -> None:
    group.limit(Limits(io_weight=500))
    assert text(group, "io.weight") == "default 4950"
    if (ROOT / group.path / "io.bfq.weight").exists():
        assert "500" in text(group, "io.bfq.weight")


def test_huge_pages_are_limited(group: Group) -> None:
    if not (ROOT / group.path / "hugetlb.2MB.max").exists():
        pytest.skip("this processor has no pages of 2 MiB")
    group.limit(Limits(hugepages=(("2MB", 4 << 20),)))
    assert text(group, "hugetlb.2MB.max") == str(4 << 20)


@pytest.mark.parametrize("name", ["nothere.max", "../cgroup.procs", "../../memory.max"])
def test_a_file_that_is_not_the_group_s_is_refused(group: Group, name: str) -> None:
    with pytest.raises(OSError, match="controller is not available"):
        group.limit(Limits(unified={name: "1"}))


def test_a_refused_value_names_file_and_value(group: Group) -> None:
    with pytest.raises(OSError, match=r"'4000'.*cpuset\.cpus"):
        group.limit(Limits(cpus="4000"))


def test_a_quota_throttles(group: Group) -> None:
    group.limit(Limits(quota=5000, period=100000))
    with Inside(group, "while :; do :; done") as spinning:
        spinning.go()
        due = time.monotonic() + 20
        while not group.stats().throttled and time.monotonic() < due:
            time.sleep(0.05)
    assert group.stats().throttled


async def test_a_container_s_limits_are_its_group_s_and_can_be_changed(box: Any) -> None:
    spec = box.spec("sleep", "60")
    spec["linux"]["resources"].update(
        memory={"limit": 64 << 20, "swap": 64 << 20}, cpu={"shares": 512, "quota": 20000}, pids={"limit": 9}
    )
    pid = await box.start("c", spec)
    group = cgroups.detect().group(f"{box.cgroup}/c")
    names = ("memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max")
    assert [text(group, name) for name in names] == [str(64 << 20), "0", "59", "20000 100000", "9"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::/{group.path}\n"
    await box.shim.update("c", {"memory": {"limit": 96 << 20, "swap": 128 << 20}, "unified": {"pids.max": "20"}})
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.weight")
    assert [text(group, name) for name in names] == [str(96 << 20), str(32 << 20), "20", "59"]
    with pytest.raises(InvalidArgument, match=r"nothere\.max"):
        await box.shim.update("c", {"unified": {"nothere.max": "1"}})


# --- making groups ---


def test_controllers_are_handed_down_to_the_group_and_no_further(path: str) -> None:
    made = cgroups.detect().create(f"{path}/a/b")
    offered = set((ROOT / "cgroup.controllers").read_text().split())
    assert {"memory", "cpu", "pids", "cpuset", "io"} <= offered
    for directory in (ROOT, ROOT / path, ROOT / path / "a"):
        assert set((directory / "cgroup.subtree_control").read_text().split()) == offered
    assert text(made, "cgroup.subtree_control") == ""
    assert set(text(made, "cgroup.controllers").split()) == offered


def test_a_process_is_born_in_its_group(group: Group) -> None:
    assert group.joiners() == []
    script = """if True:
        import json, os, sys
        from kestrel.linux import cgroups, syscalls
        directory = cgroups.detect().group(sys.argv[1]).directory()
        reader, writer = os.pipe()
        pid, pidfd = syscalls.clone3(0, cgroup=directory)
        if pid == 0:
            os.write(writer, open("/proc/self/cgroup", "rb").read())
            os._exit(0)
        os.waitpid(pid, 0)
        print(json.dumps(os.read(reader, 4096).decode()))
        """
    assert python(script, group.path) == f"0::/{group.path}\n"


def test_below_a_root_that_is_not_the_machine_s_processes_make_room(path: str) -> None:
    """As in a container with a writable cgroup2: the root we see has processes, and may not hand anything down."""
    cgroups.detect().create(path)
    script = """if True:
        import json, os, sys, tempfile
        from kestrel.linux import abi, mounts, syscalls
        from kestrel.linux.cgroups import Limits, detect
        detect().group(sys.argv[1]).attach(os.getpid())
        syscalls.unshare(abi.CLONE_NEWNS | abi.CLONE_NEWCGROUP)
        syscalls.mount(None, "/", None, abi.MS_REC | abi.MS_PRIVATE)
        with tempfile.TemporaryDirectory(prefix="ktest-") as top:
            with mounts.opened(mounts.filesystem("cgroup2")) as mount:
                with mounts.opened(os.open(top, os.O_RDONLY)) as target:
                    mounts.attach(mount, target)
            group = detect(top).create("a/b")
            group.limit(Limits(memory=32 << 20, pids=3))
            own = open("/proc/self/cgroup").read().strip()
            print(json.dumps([own, group.stats().memory_limit, sorted(e.name for e in os.scandir(top) if e.is_dir())]))
            group.remove()
            os.rmdir(f"{top}/a")
            syscalls.umount(top, abi.MNT_DETACH)
        """
    assert python(script, path) == ["0::/init", 32 << 20, ["a", "init"]]


def test_children_and_removal_go_down_the_tree(path: str) -> None:
    hierarchy = cgroups.detect()
    for name in ("a/x", "a/y", "b"):
        hierarchy.create(f"{path}/{name}")
    assert sorted(cgroups.children(path)) == [f"{path}/a", f"{path}/b"]
    assert sorted(cgroups.children(path, depth=2)) == [f"{path}/a/x", f"{path}/a/y"]
    cgroups.remove(path)
    assert not (ROOT / path).exists()
    assert cgroups.children(path) == []


# --- devices ---


def programs(group: Group) -> int:
    fd = group.directory()
    try:
        return len(device_filter._attached(fd))
    finally:
        os.close(fd)


NULL = DeviceRule(allow=True, kind="c", major=1, minor=3)
ZERO = DeviceRule(allow=True, kind="c", major=1, minor=5, access="r")


def test_a_device_program_is_attached_and_decides(group: Group) -> None:
    probe = "for f in null zero; do head -c 1 /dev/$f >/dev/null && echo $f; done; echo x > /dev/zero"
    group.devices([NULL])
    assert programs(group) == 1
    with Inside(group, probe) as process:
        _, output = process.finish()
    assert output.count("Operation not permitted") == 2
    assert "null\n" in output
    group.devices([NULL, ZERO])
    assert programs(group) == 1  # it took the other's place
    with Inside(group, probe) as process:
        _, output = process.finish()
    assert "null\nzero\n" in output
    assert output.count("Operation not permitted") == 1  # writing was not in the rule


async def test_a_container_has_a_device_program(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    assert programs(cgroups.detect().group(f"{box.cgroup}/c")) == 1


# --- freezing and killing ---


def test_a_frozen_group_stands_still_and_goes_on(group: Group) -> None:
    with Inside(group, "while :; do :; done") as process:
        process.go()
        stat = Path(f"/proc/{process.process.pid}/stat")

        def used() -> int:
            return sum(int(ticks) for ticks in stat.read_text().rsplit(")", 1)[1].split()[11:13])

        due = time.monotonic() + 20
        while not used() and time.monotonic() < due:
            time.sleep(0.01)
        group.freeze(True)
        assert "frozen 1" in text(group, "cgroup.events")
        before = used()
        time.sleep(0.2)
        assert used() == before > 0
        group.freeze(False)
        assert "frozen 0" in text(group, "cgroup.events")
        while used() == before and time.monotonic() < due:
            time.sleep(0.01)
        assert used() > before


def test_killing_takes_everything_below_frozen_or_not(path: str) -> None:
    hierarchy = cgroups.detect()
    groups = [hierarchy.create(f"{path}/{name}") for name in ("a/x", "a/y")]
    with Inside(groups[0], "sleep 1000 & sleep 1000 & wait") as one, Inside(groups[1], "sleep 1000") as two:
        one.go()
        two.go()
        due = time.monotonic() + 20
        while len(hierarchy.group(path).pids()) < 4 and time.monotonic() < due:
            time.sleep(0.01)
        groups[1].freeze(True)
        assert cgroups.kill(path)
        assert hierarchy.group(path).pids() == []
        assert [each.process.wait(timeout=10) for each in (one, two)] == [-9, -9]


# --- memory that runs out ---


def ready(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    return bool(poll.poll(seconds * 1000))


def test_running_out_of_memory_is_told_once_and_silence_is_silent(group: Group) -> None:
    group.limit(Limits(memory=16 << 20, swap=16 << 20))
    watch = group.oom_watch()
    assert watch is not None
    try:
        assert watch.urgent
        assert not ready(watch.fd, 0.1)
        with Inside(group, "head -c 100m /dev/zero | tail -c 90m") as process:
            process.go()
            assert ready(watch.fd, 60)
            process.process.wait(timeout=60)
        time.sleep(0.05)  # notices come at most every 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV)
        watch.take()
        assert group.oom_kills() >= 1
        assert group.stats().oom_kills == group.oom_kills()
        assert not ready(watch.fd, 0.1)
    finally:
        os.close(watch.fd)


async def test_a_child_that_is_killed_for_memory_is_told_while_the_container_goes_on(box: Any) -> None:
    spec = box.spec("sleep", "60")  # it asks for no memory meanwhile, so that the kernel kills one only
    spec["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    events = box.shim.events()
    await box.start("c", spec)
    session = await box.shim.exec("c", {"args": ["tail", "/dev/zero"]})
    assert await session.wait() == 137
    assert (await anext(events)).kind == "oom"
    assert [container.status for container in await box.shim.states()] == ["running"]
    await box.shim.kill("c")
    assert (await box.ended("c")).oom


async def test_waiting_for_memory_to_run_out_costs_the_shim_nothing(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))

    def ticks() -> int:
        return sum(int(n) for n in Path(f"/proc/{box.shim.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])

    before = ticks()
    await asyncio.sleep(0.5)
    assert ticks() - before <= 5


# --- numbers ---


def test_stats_are_the_kernel_s(group: Group, tmp_path: Path) -> None:
    group.limit(Limits(memory=64 << 20))
    script = f"dd if=/dev/zero of={tmp_path}/f bs=1M count=4 conv=fsync 2>/dev/null; echo written; read again"
    with Inside(group, script) as process:
        process.go()
        assert process.process.stdout is not None
        assert process.process.stdout.readline() == "written\n"
        stats = group.stats()
        assert stats.pids == 1
        assert stats.cpu is not None
        assert stats.cpu_user is not None
        assert stats.cpu_system is not None
        assert abs(stats.cpu - stats.cpu_user - stats.cpu_system) <= 2_000_000
        assert stats.cpu > 0
        assert stats.memory_limit == 64 << 20
        assert stats.memory is not None
        assert stats.working_set is not None
        assert 0 < stats.working_set <= stats.memory <= 64 << 20
        if os.major(os.stat(tmp_path).st_dev):  # on a disk
            assert stats.io_written
        assert stats.page_faults
        assert stats.oom_kills == 0
    assert cgroups.kill(group.path)
    assert group.stats().pids == 0
