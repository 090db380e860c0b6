"""How containers begin and end: states, exit codes, signals, errors, limits, and that nothing is left."""

import asyncio
import os
import shutil
import signal
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    KestrelError,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from kestrel.engine.shims import LogFile, Shim
from kestrel.linux import cgroups
from kestrel.runtime.state import read_exit, read_exits

pytestmark = pytest.mark.root


def groups_of(name: str) -> list[str]:
    """Return every cgroup directory whose path has `name` in it."""
    return [top for top, _, _ in os.walk("/sys/fs/cgroup") if name in top]


async def status_of(box: Any, name: str) -> str:
    return {state.container_id: state.status for state in await box.shim.states()}.get(name, "gone")


# --- states ---


async def test_a_container_goes_from_created_to_running_to_stopped_to_gone(box: Any) -> None:
    seen = []
    await box.create("c", box.spec("sleep", "60"))
    seen.append(await status_of(box, "c"))
    await box.shim.start("c")
    seen.append(await status_of(box, "c"))
    await box.shim.kill("c")
    await box.ended("c")
    seen.append(await status_of(box, "c"))
    await box.shim.delete("c")
    seen.append(await status_of(box, "c"))
    assert seen == ["created", "running", "stopped", "gone"]


async def test_a_created_container_has_not_run_anything(box: Any) -> None:
    await box.create("c", box.spec("echo ran"))
    await asyncio.sleep(0.05)
    assert box.output("c") == ""


async def test_operations_in_the_wrong_state_are_refused_in_runc_s_words(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    with pytest.raises(FailedPrecondition, match="cannot start"):
        await box.shim.start("c")
    with pytest.raises(FailedPrecondition, match="cannot delete"):
        await box.shim.delete("c")
    with pytest.raises(AlreadyExists, match="already exists"):
        await box.create("c", box.spec("true"))
    with pytest.raises(NotFound, match="container does not exist"):
        await box.shim.kill("other")
    await box.shim.kill("c")
    await box.ended("c")
    with pytest.raises(FailedPrecondition, match="container not running"):
        await box.shim.kill("c")


async def test_an_id_that_could_be_a_path_is_refused(box: Any) -> None:
    for name in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(InvalidArgument, match="invalid container id"):
            await box.shim.create(name, box.spec("true"), box.rootfs("c"))


# --- ends ---


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; kill -TERM $$; exit 3", 3)])
async def test_the_exit_code_is_the_program_s(box: Any, script: str, code: int) -> None:
    # a PID 1 is not ended by signals from inside that it does not handle, SIGKILL included
    assert (await box.run("c", box.spec(script)))[0] == code


async def test_a_signal_from_outside_gives_128_and_its_number(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    await box.shim.kill("c", signal.SIGKILL)
    assert (await box.ended("c")).exit_code == 137


async def test_a_program_that_handles_term_ends_as_it_likes(box: Any) -> None:
    await box.start("c", box.spec("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"))
    await box.until(lambda: "ready" in box.output("c"))
    await box.shim.kill("c", signal.SIGTERM)
    assert (await box.ended("c")).exit_code == 5


async def test_grandchildren_that_outlive_the_first_process_are_killed(make_box: Any) -> None:
    for options in ({}, {"share_pid": True}, {"host_pid": True}):
        box = await make_box(**options)
        spec = box.spec("(setsid sleep 1000 &) ; (sleep 1000 &); exit 4")
        if options:
            spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]
        assert (await box.run("c", spec))[0] == 4, options
        assert cgroups.detect().group(f"{box.cgroup}/c").pids() == []


async def test_the_end_is_on_disk_before_it_is_told(box: Any) -> None:
    await box.start("c", box.spec("exit 9"))
    events = box.shim.events()
    event = await anext(events)
    assert (event.kind, event.container_id, event.exit_code, event.oom) == ("exited", "c", 9, False)
    assert read_exit(box.directory, "c") == event
    await box.shim.delete("c")
    assert read_exits(box.directory) == []


async def test_an_end_before_anybody_listens_is_told_to_the_first_who_does(box: Any) -> None:
    await box.run("c", box.spec("exit 2"))
    assert (await anext(box.shim.events())).exit_code == 2


async def test_out_of_memory_is_noticed(box: Any) -> None:
    spec = box.spec("tail", "/dev/zero")  # alone: beside others the kernel may kill more than one
    spec["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    events = box.shim.events()
    await box.start("c", spec)
    assert [(await anext(events)).kind for _ in range(2)] == ["oom", "exited"]
    ended = await box.ended("c")
    assert (ended.exit_code, ended.oom) == (137, True)


# --- errors of starting ---


@pytest.mark.parametrize(
    ("argv", "error", "words", "code"),
    [
        (("nothere", "x"), NotFound, 'exec: "nothere": executable file not found in $PATH', 127),
        (("/nothere", "x"), NotFound, 'exec: "/nothere": no such file or directory', 127),
        (("/etc", "x"), PermissionDenied, 'exec: "/etc": permission denied', 126),
        (("/etc/passwd", "x"), PermissionDenied, 'exec: "/etc/passwd": permission denied', 126),
        (("/s/crlf", "x"), NotFound, "no such file or directory: its first line ends with CRLF", 127),
        (("/s/interp", "x"), NotFound, "its interpreter /no/such/sh is not in the image", 127),
        (("/s/loader", "x"), NotFound, "its loader /lib/ld-none.so is not in the image", 127),
        (("/s/arm", "x"), InvalidArgument, "exec format error", 126),
        (("/s/plain", "x"), InvalidArgument, "exec format error", 126),
    ],
)
async def test_a_program_that_cannot_run_is_explained(
    box: Any, tmp_path: Path, argv: tuple[str, ...], error: type[KestrelError], words: str, code: int
) -> None:
    loader = b"/lib/ld-none.so\0"
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    interp = struct.pack("<IIQQQQQQ", 3, 4, 176, 176, 176, len(loader), len(loader), 1)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 200, 200, 4096)
    files = {
        "crlf": b"#!/bin/sh\r\necho hi\r\n",
        "interp": b"#!/no/such/sh -e\n",
        "loader": elf + header + interp + load + loader,
        "arm": elf + struct.pack("<HH", 2, 183) + bytes(44),
        "plain": b"echo hi\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o755)
    spec = box.spec(*argv)
    spec["mounts"].append({"destination": "/s", "type": "bind", "source": str(tmp_path), "options": ["bind"]})
    with pytest.raises(error) as caught:
        await box.start("c", spec)
    assert words in caught.value.message
    assert caught.value.context["exit_code"] == code
    if argv[0] == "/s/arm":
        assert caught.value.hint == "wrong architecture: the program is for arm64, this machine is amd64"
    await box.shim.delete("c", force=True)


async def test_a_create_that_fails_leaves_nothing(box: Any) -> None:
    before = set(os.listdir("/proc/self/fd"))
    spec = box.spec("true")
    spec["mounts"].append({"destination": "/x", "type": "nosuchfs", "options": []})
    for _ in range(3):
        with pytest.raises(KestrelError, match="nosuchfs"):
            await box.create("c", spec)
    assert await status_of(box, "c") == "gone"
    assert groups_of(f"{box.cgroup}/c") == []
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_limit_the_kernel_refuses_is_named(box: Any) -> None:
    spec = box.spec("true")
    spec["linux"]["resources"]["cpu"] = {"cpus": "4000"}
    with pytest.raises(InvalidArgument, match=r"4000.*cpuset\.cpus"):
        await box.create("c", spec)
    assert groups_of(f"{box.cgroup}/c") == []


async def test_a_memory_limit_too_low_to_start_is_an_error_not_a_hang(box: Any) -> None:
    spec = box.spec("true")
    spec["linux"]["resources"]["memory"] = {"limit": 65536}
    with pytest.raises(KestrelError):
        await asyncio.wait_for(box.start("c", spec), 10)


# --- limits ---


async def test_limits_are_in_the_container_s_own_group(box: Any) -> None:
    spec = box.spec("sleep", "60")
    spec["linux"]["resources"] |= {
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000},
    }
    pid = await box.start("c", spec)
    stats = await box.shim.stats("c")
    assert stats["memory_limit"] == 64 << 20
    assert stats["pids"] == 1
    assert stats["cpu"] is not None
    assert stats["working_set"] is not None
    await box.shim.update("c", {"memory": {"limit": 128 << 20, "swap": 128 << 20}})
    assert (await box.shim.stats("c"))["memory_limit"] == 128 << 20
    assert f"/{box.cgroup}/c" in Path(f"/proc/{pid}/cgroup").read_text()


async def test_the_number_of_processes_is_limited(box: Any) -> None:
    spec = box.spec("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>&1; echo end")
    spec["linux"]["resources"]["pids"] = {"limit": 4}
    assert "can't fork" in (await box.run("c", spec))[1]


async def test_a_paused_container_stands_still_and_can_be_killed(box: Any) -> None:
    await box.start("c", box.spec("while :; do echo x; sleep 0.005; done"))
    await box.until(lambda: box.log("c").stat().st_size > 0)
    await box.shim.pause("c")
    assert await status_of(box, "c") == "paused"
    size = box.log("c").stat().st_size
    await asyncio.sleep(0.05)
    assert box.log("c").stat().st_size == size
    await box.shim.resume("c")
    await box.until(lambda: box.log("c").stat().st_size > size)
    await box.shim.pause("c")
    await box.shim.kill("c")
    assert (await box.ended("c")).exit_code == 137


# --- the shim's life ---


async def test_a_daemon_that_comes_back_learns_what_happened_meanwhile(box: Any) -> None:
    await box.start("stays", box.spec("sleep", "60"))
    await box.start("ends", box.spec("sleep 0.1; echo last words; exit 6"))
    await box.shim.close()
    await asyncio.sleep(0.3)
    box.shim = await Shim.connect(box.directory)
    states = {state.container_id: state for state in await box.shim.states()}
    assert (states["stays"].status, states["stays"].exit_code) == ("running", None)
    assert (states["ends"].status, states["ends"].exit_code) == ("stopped", 6)
    assert (await anext(box.shim.events())).exit_code == 6
    assert box.output("ends") == "last words\n"
    assert await box.shim.exec_sync("stays", {"args": ["true"]})


async def test_shims_and_containers_outlive_the_zygote_and_a_new_one_takes_its_place(box: Any) -> None:
    pid = await box.start("c", box.spec("sleep", "60"))
    os.kill(box.zygote.pid, signal.SIGKILL)
    assert (await box.shim.exec_sync("c", {"args": ["echo", "alive"]})).stdout == b"alive\n"
    assert Path(f"/proc/{pid}").exists()
    (box.directory / "other").mkdir()
    other = await box.zygote.shim(box.request("other"))
    assert await other.states() == []
    assert await other.shutdown() == []


async def test_containers_die_with_their_shim_and_are_reported_so(box: Any) -> None:
    pid = await box.start("c", box.spec("sleep", "60"))
    os.kill(box.shim.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        assert [event async for event in box.shim.events()] == []
    await box.until(lambda: not Path(f"/proc/{pid}/root/bin").exists())
    with pytest.raises(Unavailable):
        await Shim.connect(box.directory)
    with pytest.raises(Unavailable):
        await box.shim.states()


async def test_shutdown_leaves_no_process_no_cgroup_and_no_socket(box: Any) -> None:
    pids = [await box.start(name, box.spec("sleep", "60")) for name in ("a", "b")]
    await box.create("c", box.spec("true"))
    shim = box.shim.pid
    assert await box.shim.shutdown() == []
    await box.until(lambda: not os.path.exists(f"/proc/{shim}/exe"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert groups_of(box.cgroup) == []
    assert not (box.directory / "shim.sock").exists()
    assert sorted(exited.exit_code for exited in read_exits(box.directory)) == [137, 137, 137]


async def test_the_socket_is_private(box: Any) -> None:
    mode = (box.directory / "shim.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert str(box.directory) not in Path("/proc/net/unix").read_text().replace(f"{box.directory}/shim.sock", "")


async def test_many_starts_leave_no_descriptor_or_memory_behind(box: Any) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{box.shim.pid}/fd"))

    async def once(name: str) -> None:
        await box.run(name, box.spec("true"))
        await box.shim.delete(name)

    for index in range(5):
        await once(f"warm{index}")
    await asyncio.sleep(0.05)  # the shim rests, or never will
    before = descriptors()
    for index in range(30):
        await once(f"c{index}")
        shutil.rmtree(box.directory / f"c{index}")
    await box.until(lambda: descriptors() == before)
    assert groups_of(f"{box.cgroup}/") == []


# --- logs ---


async def test_the_log_has_cri_s_form_and_splits_long_lines(box: Any) -> None:
    await box.run("c", box.spec("echo out; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf tail"))
    lines = [line.split(" ", 3) for line in box.log("c").read_text().splitlines()]
    assert all(line[0].endswith("Z") and len(line[0]) == 30 for line in lines)
    assert {(line[1], line[3]) for line in lines} >= {("stdout", "out"), ("stderr", "err")}
    long = [(line[2], len(line[3])) for line in lines if line[3].startswith("x")]
    assert long == [("P", 16384), ("P", 16384), ("F", 7232)]
    assert lines[-1][2:] == ["P", "tail"]


async def test_the_log_is_rotated_by_size(box: Any) -> None:
    log = LogFile(path=str(box.log("c")), max_size=20000, max_files=3)
    await box.run("c", box.spec("for i in $(seq 1 1500); do echo line $i; done"), log=log)
    files = sorted(path.name for path in box.directory.glob("c.log*"))
    assert files == ["c.log", "c.log.1", "c.log.2"]
    assert all(path.stat().st_size <= 20000 for path in box.directory.glob("c.log*"))
    assert box.output("c").endswith("line 1500\n")


async def test_the_log_is_reopened_after_a_rename(box: Any) -> None:
    await box.start("c", box.spec("echo one; read x; echo two"), stdin=True)
    await box.until(lambda: bool(box.output("c")))
    box.log("c").rename(box.directory / "old.log")
    await box.shim.reopen_log("c")
    session = await box.shim.attach("c")
    await session.write(b"go\n")
    assert await session.wait() == 0
    await session.close()
    assert box.output("c") == "two\n"
    assert "one" in (box.directory / "old.log").read_text()


async def test_a_log_path_that_is_a_symlink_is_refused(box: Any, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("")
    box.log("c").symlink_to(tmp_path / "victim")
    with pytest.raises(KestrelError):
        await box.create("c", box.spec("echo x"))
    assert (tmp_path / "victim").read_text() == ""


# --- namespaces that are shared ---


async def test_a_shared_pid_namespace_shows_the_other_containers(make_box: Any) -> None:
    box = await make_box(share_pid=True)
    spec = box.spec("sleep", "60")
    spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]
    await box.start("a", spec)
    found = await box.shim.exec_sync("a", {"args": ["ps", "-o", "pid,args"]})
    assert b"1 " in found.stdout
    assert b"sleep 60" in found.stdout
    other = {**spec, "process": {**spec["process"], "args": ["ps", "-o", "args"]}}
    code, output = await box.run("b", other)
    assert code == 0
    assert "sleep 60" in output


async def test_the_host_s_namespaces_are_used_when_asked_for(make_box: Any) -> None:
    box = await make_box(host_network=True, host_ipc=True, host_pid=True, hostname="")
    spec = box.spec("for n in net ipc pid uts; do readlink /proc/self/ns/$n; done")
    spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]
    _, output = await box.run("c", spec)
    assert output.split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc", "pid", "uts")]


async def test_a_cpuset_can_be_set_on_a_container_that_had_none(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    await box.shim.update("c", {"cpu": {"cpus": "0"}})
    found = await box.shim.exec_sync("c", {"args": ["grep", "Cpus_allowed_list", "/proc/self/status"]})
    assert found.stdout.split() == [b"Cpus_allowed_list:", b"0"]
