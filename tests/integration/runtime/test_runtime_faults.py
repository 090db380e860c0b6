"""Killing init, shim and zygote at every moment of a start: an answer comes, and nothing is left."""

import asyncio
import os
import signal
from typing import Any

import pytest

from kestrel.base.errors import KestrelError, Unavailable
from kestrel.linux import cgroups
from kestrel.runtime.state import read_exit
from kestrel.testing.instance import children

pytestmark = [
    pytest.mark.root,
    pytest.mark.parametrize("make_box", [60.0], ids=["awake"], indirect=True),  # the shim would be a child that comes
]

MOMENTS = [0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008]


async def kill_when_it_appears(keeper: int, known: set[int], delay: float) -> None:
    """Kill a keeper's next child, `delay` seconds after it came into being."""
    for _ in range(2000):
        for child in set(children(keeper)) - known:
            await asyncio.sleep(delay)
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("delay", MOMENTS)
async def test_an_init_killed_while_it_starts_is_an_error_and_leaves_nothing(box: Any, delay: float) -> None:
    await box.script("true")  # the seccomp profile is compiled now, in a child of its own
    fds = len(os.listdir(f"/proc/{box.shim.pid}/fd"))
    known = set(children(box.shim.pid))
    killer = asyncio.create_task(kill_when_it_appears(box.shim.pid, known, delay))
    try:
        async with asyncio.timeout(10):
            await box.create("c", box.spec("sleep", "60"))
            await killer
            await box.shim.start("c")
            assert (await box.ended("c")).exit_code == 137
    except KestrelError as error:
        said = error.message
        assert "init ended" in said or "not running" in said or "cannot start" in said
    await killer
    await box.shim.delete("c", force=True)
    assert "c" not in [state.container_id for state in await box.shim.states()]
    assert not [top for top, _, _ in os.walk("/sys/fs/cgroup") if top.endswith(f"{box.cgroup}/c")]
    assert len(os.listdir(f"/proc/{box.shim.pid}/fd")) == fds


@pytest.mark.parametrize("delay", MOMENTS)
async def test_a_shim_killed_while_a_container_starts_takes_it_along(box: Any, delay: float) -> None:
    async def kill_shim() -> None:
        await asyncio.sleep(delay)
        os.kill(box.shim.pid, signal.SIGKILL)

    killer = asyncio.create_task(kill_shim())
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await box.start("c", box.spec("sleep", "60"))
            await killer
            await box.shim.gone.wait()
            await box.shim.states()
    await killer
    async with asyncio.timeout(10):
        await box.shim.gone.wait()  # the keeper was killed, and the shim a moment after it
    group = cgroups.detect().group(box.cgroup)
    # a child that was cloned but had not yet joined its group finds its channel closed; all others die with the shim
    await box.until(lambda: group.pids() == [])
    cgroups.destroy(box.cgroup)
    assert not [top for top, _, _ in os.walk("/sys/fs/cgroup") if box.cgroup in top]


async def test_a_container_killed_between_create_and_start_ends_as_killed(box: Any) -> None:
    pid = await box.create("c", box.spec("sleep", "60"))
    os.kill(pid, signal.SIGKILL)
    ended = await box.ended("c")
    assert ended.exit_code == 137
    assert read_exit(box.directory, "c") == ended


async def test_a_process_killed_while_it_joins_is_an_answer(box: Any) -> None:
    await box.start("c", box.spec("sleep", "60"))
    for index in range(12):
        victims = set(children(box.shim.pid))

        async def kill_new(known: set[int] = victims, wait: float = index * 0.0004) -> None:
            for _ in range(1000):
                new = set(children(box.shim.pid)) - known
                if new:
                    await asyncio.sleep(wait)
                    for child in new:
                        try:
                            os.kill(child, signal.SIGKILL)
                        except ProcessLookupError:
                            pass
                    return
                await asyncio.sleep(0)

        killer = asyncio.create_task(kill_new())
        try:
            async with asyncio.timeout(5):
                done = await box.shim.exec_sync("c", {"args": ["sleep", "0.02"]})
            assert done.exit_code in (0, 137)
        except KestrelError as error:
            assert "ended before" in error.message  # noqa: PT017 - an error is allowed, not required
        await killer
    assert (await box.shim.exec_sync("c", {"args": ["echo", "fine"]})).stdout == b"fine\n"


async def test_a_container_that_ends_while_exec_joins_is_an_answer(box: Any) -> None:
    for index in range(8):
        name = f"c{index}"
        await box.start(name, box.spec("sleep", "60"))
        joining = asyncio.create_task(box.shim.exec_sync(name, {"args": ["sleep", "30"]}))
        await asyncio.sleep(index * 0.0008)
        await box.shim.kill(name)
        try:
            async with asyncio.timeout(10):
                done = await joining
            assert done.exit_code == 137
        except KestrelError:
            pass
        assert (await box.ended(name)).exit_code == 137


async def test_a_client_that_sends_nonsense_is_dropped_and_others_are_not(box: Any) -> None:
    for data in (b"\0" * 6, b"\xff" * 100, b"\0\0\0\2\0\0[]", b"\0\0\0\1\0\0x"):
        reader, writer = await asyncio.open_unix_connection(str(box.directory / "shim.sock"))
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()
        await writer.wait_closed()
    assert await box.shim.states() == []


async def test_unknown_and_malformed_requests_are_answered_with_an_error(box: Any) -> None:
    with pytest.raises(KestrelError, match="unknown request"):
        await box.shim._ask("nonsense")
    with pytest.raises(KestrelError, match="bad CreateRequest message"):
        await box.shim._ask("create", container_id="x", nonsense=1)
    spec = box.spec("true")
    spec["mounts"].append({"type": "tmpfs"})
    with pytest.raises(KestrelError, match="mount has no destination"):
        await box.create("x", spec)
    with pytest.raises(KestrelError, match=r"process\.args must not be empty"):
        await box.create("x", {"ociVersion": "1.0.2", "process": {}, "linux": {"namespaces": [{"type": "mount"}]}})
