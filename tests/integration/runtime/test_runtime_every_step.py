"""A crash at any step leaves nothing behind: every process of the runtime dies, or fails, before each of its calls.

What a life consists of is found out by watching one; then it is lived again for each step of each process, with that
step as its last, or failing. CI tries each place in the code once; `./dev faults` tries every single call.
"""

import asyncio
import errno
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import KestrelError
from kestrel.engine.shims import LogFile, SandboxRequest, Shim, Zygote
from kestrel.linux import cgroups
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import default_seccomp, default_spec
from kestrel.testing.faults import KILL, MARK, ROLES, UNFAILING, Faults
from kestrel.testing.instance import zygotes

pytestmark = [pytest.mark.root, pytest.mark.timeout(3000)]

EVERY = bool(os.environ.get("KESTREL_EVERY_STEP"))
PATIENCE = 20.0  # seconds a life may take before it counts as hanging

Step = tuple[int, str]


@dataclass
class World:
    """A place to live in, and the hand of fate."""

    faults: Faults
    directory: Path
    layer: Path
    zygote: Zygote
    number: int = 0

    def spec(self, *args: str) -> dict[str, Any]:
        spec = default_spec(args)
        spec["linux"]["seccomp"] = default_seccomp()
        spec["process"]["env"] = ["PATH=/bin", f"{MARK}={self.faults.token}"]
        return spec

    async def live(self) -> list[str]:
        """Live through everything a sandbox and its container can do; return what was wrong afterwards."""
        self.number += 1
        place = self.directory / f"box{self.number}"
        place.mkdir()
        group = f"kestrel-test-{self.faults.token}/{place.name}"
        problems = []
        try:
            async with asyncio.timeout(PATIENCE):
                await self._live(place, group)
        except KestrelError:
            pass  # an answer; which one is not the matter here
        except TimeoutError:
            problems.append("no answer came")
        cgroups.destroy(group)  # as the engine does with what a lost shim leaves (engine/sandbox.py, tear_down)
        shutil.rmtree(place)
        return problems + await self.left(group)

    async def _live(self, place: Path, group: str) -> None:
        shim = await self.zygote.shim(
            SandboxRequest(
                id=place.name, directory=str(place), hostname="box", share_pid=True, cgroup=group, rest_after=0.01
            )
        )
        try:
            await self._contain(shim, place, group)
        finally:
            async with asyncio.timeout(PATIENCE):
                await shim.shutdown()

    async def _contain(self, shim: Shim, place: Path, group: str) -> None:
        for part in ("upper", "work"):
            (place / part).mkdir()
        rootfs = Rootfs(lowers=(Lower(path=str(self.layer)),), upper=str(place / "upper"), work=str(place / "work"))
        log = LogFile(path=str(place / "log"))
        await shim.create("c", self.spec("sleep", "600"), rootfs, log=log, cgroup=f"{group}/c")
        await shim.start("c")
        await asyncio.sleep(0.02)  # the shim rests, and another goes on
        await shim.exec_sync("c", {"args": ["true"]})
        await shim.kill("c")
        await shim.wait("c")
        await shim.delete("c")

    async def left(self, group: str) -> list[str]:
        """Return what is left of a life: processes, groups, mounts; what is on its way out may take a while."""
        if not Path(f"/proc/{self.zygote.pid}/exe").exists():
            await self.renew()  # who waits with a zygote that has died takes the next request, or goes with the daemon
        found: list[str] = []
        due = time.monotonic() + 3
        while True:
            alive = self.faults.alive()
            found = [p for p in alive if int(p.split()[1]) not in zygotes(self.zygote.pid)]
            found += [top for top, _, _ in os.walk("/sys/fs/cgroup") if top.endswith(group)]
            if not found or time.monotonic() > due:
                break
            await asyncio.sleep(0.005)
        mounts = Path("/proc/self/mountinfo").read_text()
        return found + (["a mount"] if self.faults.token in mounts else [])

    async def steps(self, role: str) -> list[Step]:
        """Return the steps of a role: all, or the first at each place of the code."""
        await self.live()  # what is cached is cached now
        await self.renew(lambda: self.faults.watch(role))
        steps: list[Step] = []
        for _ in range(5):  # what the zygote makes for the next one may have been made for this one, unwatched
            assert await self.live() == []
            steps = self.faults.steps()
            if steps:
                break
        assert steps
        return steps if EVERY else list({what: (number, what) for number, what in reversed(steps)}.values())

    async def renew(self, arm: Callable[[], None] = lambda: None) -> None:
        """Go on with a zygote that has done nothing yet, and is the first that what is armed is meant for."""
        await self.zygote.close()
        arm()
        self.zygote = self.faults.zygote(self.directory / "cache")

    async def each(self, role: str, how: int) -> None:
        """Live once for each step of a role, with something happening there."""
        wrong, happened, steps = [], 0, await self.steps(role)
        for number, what in steps:
            if how != KILL and what.split()[0] in UNFAILING:
                happened += 1
                continue
            arm = partial(self.faults.arm, role, number, how)
            if role == "zygote":
                self.faults.disarm()
                await self.renew(arm)
            else:
                arm()
            problems = await self.live()
            if role == "zygote" and not self.faults.happened:
                problems += await self.live()  # it does the same again for the next sandbox
            happened += bool(self.faults.happened)
            wrong += [f"{self.faults.happened}: {problem}" for problem in problems]
        self.faults.disarm()
        assert not wrong, "\n".join(wrong)
        assert happened > len(steps) * 0.7  # the number of steps varies where somebody is waited for
        assert await self.live() == []


@pytest.fixture
async def world(layer: Path) -> AsyncIterator[World]:
    """A world of its own, and nothing of it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="ktest-faults-"))
    faults = Faults(directory)
    made = World(faults, directory, layer, faults.zygote(directory / "cache"))
    (directory / "cache").mkdir()
    yield made
    await made.zygote.close()
    cgroups.destroy(f"kestrel-test-{faults.token}")
    shutil.rmtree(directory)


@pytest.mark.parametrize("role", ROLES)
async def test_a_process_that_dies_at_any_step_leaves_nothing(world: World, role: str) -> None:
    await world.each(role, KILL)


@pytest.mark.parametrize("role", ROLES)
async def test_a_call_that_fails_at_any_step_leaves_nothing(world: World, role: str) -> None:
    await world.each(role, errno.ENOMEM)
