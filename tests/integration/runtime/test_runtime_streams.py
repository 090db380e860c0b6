"""Exec, attach, terminals, input, and ports of the sandbox."""

import asyncio
from typing import Any

import pytest

from kestrel.base.errors import FailedPrecondition, InvalidArgument, NotFound, TimedOut, Unavailable

pytestmark = pytest.mark.root


async def everything(session: Any, timeout: float = 10) -> dict[int, bytes]:
    """Read a session to its end."""
    found = {1: bytearray(), 2: bytearray()}
    async with asyncio.timeout(timeout):
        while (chunk := await session.read()) is not None:
            found[chunk[0]] += chunk[1]
    return found


# --- exec ---


async def test_exec_joins_every_namespace_the_group_and_the_confinement(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    script = (
        "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done;"
        "for n in mnt pid net ipc uts cgroup; do readlink /proc/1/ns/$n; done;"
        "grep -E '^(Cap|Seccomp:|NoNew)' /proc/self/status; grep -E '^(Cap|Seccomp:|NoNew)' /proc/1/status;"
        "cat /proc/self/cgroup; cat /proc/1/cgroup"
    )
    done = await box.shim.exec_sync("c", {"args": ["sh", "-c", script]})
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[:6] == lines[6:12]
    half = 12 + (len([line for line in lines if line.startswith(("Cap", "Sec", "NoNew"))]) // 2)
    confinement = [line for line in lines if line.startswith(("Cap", "Sec", "NoNew"))]
    assert confinement[: len(confinement) // 2] == confinement[len(confinement) // 2 :]
    assert half > 12
    groups = [line for line in lines if ":" in line and "/" in line and not line.startswith(("mnt", "pid"))]
    assert len(set(groups)) * 2 == len(groups)


async def test_exec_has_no_descriptor_of_the_host(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    done = await box.shim.exec_sync("c", {"args": ["ls", "/proc/self/fd"]})
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"]


async def test_exec_gives_code_and_both_streams(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    done = await box.shim.exec_sync("c", {"args": ["sh", "-c", "echo out; echo err >&2; exit 3"]})
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


async def test_exec_takes_user_directory_and_environment_of_its_own(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    process = {
        "args": ["sh", "-c", "id -u; pwd; echo $A"],
        "user": {"uid": 33, "gid": 33},
        "cwd": "/tmp",
        "env": ["A=b", "PATH=/bin"],
    }
    assert (await box.shim.exec_sync("c", process)).stdout == b"33\n/tmp\nb\n"


async def test_exec_of_something_absent_is_explained(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    with pytest.raises(NotFound, match="executable file not found in \\$PATH") as caught:
        await box.shim.exec_sync("c", {"args": ["nothere"]})
    assert caught.value.context["exit_code"] == 127


async def test_exec_in_a_container_that_does_not_run_is_refused(box: Any) -> None:
    await box.create("c", box.spec("sleep", "60"))
    with pytest.raises(FailedPrecondition, match="not running"):
        await box.shim.exec_sync("c", {"args": ["true"]})


async def test_exec_with_input_sees_its_end(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    session = await box.shim.exec("c", {"args": ["sh", "-c", "wc -c; echo done"]}, stdin=True)
    await session.write(b"x" * 300_000)
    await session.close_stdin()
    assert await everything(session) == {1: b"300000\ndone\n", 2: b""}
    assert await session.wait() == 0
    await session.close()


async def test_exec_on_a_terminal_has_a_size_and_can_be_resized(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    session = await box.shim.exec(
        "c", {"args": ["sh", "-c", "tty; stty size; read x; stty size"]}, terminal=True, size=(80, 24)
    )
    text = b""
    while b"24 80" not in text:
        text += (await session.read())[1]
    await session.resize(120, 40)
    await session.write(b"go\n")
    text += (await everything(session))[1]
    assert b"/dev/pts/" in text
    assert b"40 120" in text
    assert await session.wait() == 0
    await session.close()


async def test_exec_sync_that_takes_too_long_is_killed(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    with pytest.raises(TimedOut, match="timed out after"):
        await box.shim.exec_sync("c", {"args": ["sh", "-c", "sleep 50; echo no"]}, timeout=0.2)
    listed = await box.shim.exec_sync("c", {"args": ["ps", "-o", "args"]})
    assert b"sleep 50" not in listed.stdout


async def test_exec_sync_output_is_bounded(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    done = await box.shim.exec_sync("c", {"args": ["head", "-c", "5000000", "/dev/zero"]}, limit=1000)
    assert len(done.stdout) == 1000


async def test_a_child_that_keeps_the_streams_open_does_not_hold_exec_back(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    async with asyncio.timeout(5):
        done = await box.shim.exec_sync("c", {"args": ["sh", "-c", "sleep 50 & echo begun"]})
    assert done.stdout == b"begun\n"


async def test_closing_an_exec_s_session_kills_it(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    session = await box.shim.exec("c", {"args": ["sleep", "50"]})
    await session.close()
    assert await asyncio.wait_for(session.wait(), 5) == 137


async def test_many_execs_at_once_all_come_back(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    calls = [box.shim.exec_sync("c", {"args": ["echo", str(n)]}) for n in range(20)]
    assert [done.stdout for done in await asyncio.gather(*calls)] == [f"{n}\n".encode() for n in range(20)]


# --- attach ---


async def test_an_attacher_from_before_the_start_sees_everything(box: Any) -> None:
    await box.create("c", box.spec("echo out; echo err >&2; exit 4"))
    session = await box.shim.attach("c", stdin=False)
    await box.shim.start("c")
    assert await everything(session) == {1: b"out\n", 2: b"err\n"}
    assert await session.wait() == 4
    await session.close()


async def test_many_attachers_see_the_same_and_any_may_write(box: Any) -> None:
    await box.start("c", box.spec("read a; read b; echo $a $b"), stdin=True)
    sessions = [await box.shim.attach("c") for _ in range(3)]
    await sessions[0].write(b"one\n")
    await asyncio.sleep(0.02)
    await sessions[1].write(b"two\n")
    for session in sessions:
        assert (await everything(session))[1] == b"one two\n"
        await session.close()


async def test_half_closed_input_ends_the_program_s_input_when_promised(box: Any) -> None:
    await box.start("c", box.spec("wc -c; echo after"), stdin=True, stdin_once=True)
    session = await box.shim.attach("c")
    await session.write(b"y" * 200_000)
    await session.close_stdin()
    assert (await everything(session))[1] == b"200000\nafter\n"
    await session.close()


async def test_one_who_only_watches_does_not_end_the_input(box: Any) -> None:
    await box.start("c", box.spec("read a; echo got $a"), stdin=True, stdin_once=True)
    watcher = await box.shim.attach("c", stdin=False)
    await watcher.close()
    await asyncio.sleep(0.05)
    writer = await box.shim.attach("c")
    await writer.write(b"it\n")
    assert (await everything(writer))[1] == b"got it\n"
    await writer.close()


async def test_input_stays_open_for_the_next_attacher_otherwise(box: Any) -> None:
    await box.start("c", box.spec("read a; read b; echo $a $b"), stdin=True)
    first = await box.shim.attach("c")
    await first.write(b"one\n")
    await first.close_stdin()
    await first.close()
    await asyncio.sleep(0.05)
    second = await box.shim.attach("c")
    await second.write(b"two\n")
    assert (await everything(second))[1] == b"one two\n"
    await second.close()


async def test_a_container_without_input_reads_nothing(box: Any) -> None:
    assert (await box.run("c", box.spec("cat; echo end")))[1] == "end\n"


async def test_an_attacher_that_does_not_read_is_cut_off_and_the_container_goes_on(box: Any) -> None:
    await box.create("c", box.spec("head -c 30000000 /dev/zero; echo finished >&2"))
    session = await box.shim.attach("c", lossless=False)
    await box.shim.start("c")
    assert (await box.ended("c")).exit_code == 0
    assert "finished" in box.output("c", "stderr")
    assert len((await everything(session))[1]) < 30_000_000
    await session.close()


async def test_a_lossless_attacher_gets_every_byte_however_slow(box: Any) -> None:
    await box.create("c", box.spec("head -c 20000000 /dev/zero"), log=None)
    session = await box.shim.attach("c")
    await box.shim.start("c")
    await asyncio.sleep(0.2)
    states = await box.shim.states()
    assert states[0].status == "running"  # it waits for us
    assert len((await everything(session))[1]) == 20_000_000
    await session.close()


async def test_a_lossless_attacher_that_leaves_does_not_hold_the_container(box: Any) -> None:
    await box.create("c", box.spec("head -c 20000000 /dev/zero"), log=None)
    session = await box.shim.attach("c")
    await box.shim.start("c")
    await asyncio.sleep(0.1)
    await session.close()
    assert (await box.ended("c")).exit_code == 0


async def test_nobody_reading_the_log_blocks_nothing(box: Any) -> None:
    assert (await box.run("c", box.spec("head -c 10000000 /dev/zero | tr '\\0' 'a'")))[0] == 0
    assert box.log("c").stat().st_size > 10_000_000


# --- terminals ---


async def test_a_terminal_container_talks_through_its_console(box: Any) -> None:
    await box.create(
        "c", box.spec("tty; ls -l /dev/console; stty size; read x; echo got $x"), terminal=True, stdin=True
    )
    session = await box.shim.attach("c")
    await box.shim.resize("c", 100, 30)
    await box.shim.start("c")
    await session.write(b"hello\n")
    text = (await everything(session))[1].decode()
    assert "/dev/pts/0" in text or "/dev/console" in text
    assert "30 100" in text
    assert "got hello" in text
    await session.close()


async def test_a_terminal_that_is_hung_up_does_not_make_the_shim_spin(box: Any) -> None:
    await box.start("c", box.spec("exec >/dev/null 2>&1 </dev/null; sleep 60"), terminal=True, stdin=True)
    await asyncio.sleep(0.05)
    with open(f"/proc/{box.shim.pid}/stat") as file:
        before = sum(int(word) for word in file.read().split()[13:15])
    await asyncio.sleep(0.3)
    with open(f"/proc/{box.shim.pid}/stat") as file:
        assert sum(int(word) for word in file.read().split()[13:15]) - before <= 2


async def test_resizing_what_has_no_terminal_is_an_error(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    with pytest.raises(InvalidArgument, match="no terminal"):
        await box.shim.resize("c", 80, 24)


# --- ports ---


async def test_a_port_is_dialled_inside_the_sandbox(box: Any) -> None:
    await box.start("c", box.spec("nc -l -p 8080 -e cat"))
    for _ in range(100):
        try:
            reader, writer = await box.shim.dial(8080)
            break
        except Unavailable:
            await asyncio.sleep(0.02)
    writer.write(b"ping")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b"ping"
    writer.close()
    await writer.wait_closed()


async def test_a_port_where_nobody_listens_is_explained(box: Any) -> None:
    with pytest.raises(Unavailable, match="connect to port 9 of the sandbox: connection refused"):
        await box.shim.dial(9)
