"""`on_failure`: while somebody looks, everything of the failed RUN stands; afterwards nothing of it is left."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.build import BuildRequest, FailedRun, RunFailed
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
FAILS = "FROM busybox\nENV A=b\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c touch /made /c/x; exit 3\n"


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    (tmp_path / "secret").write_text("a secret value")
    yield made
    assert made.snapshots.keys() == []
    assert os.listdir(made.root / "builder/scratch") == []
    made.database.close()


def request(world: World, text: str) -> BuildRequest:
    world.file("Dockerfile", text)
    return BuildRequest(context=world.context, secrets={"s": world.root / "secret"})


async def answer(failed: FailedRun, *argv: str) -> str:
    async with failed.enter(argv) as process:
        await process.close_stdin()
        said = b""
        while (chunk := await process.read()) is not None:
            said += chunk[1]
        return said.decode()


async def test_files_mounts_and_environment_are_those_of_the_run(world: World) -> None:
    said: list[str] = []

    async def look(failed: FailedRun) -> None:
        assert failed.shell == ("/bin/sh",)
        said.append(await answer(failed, "sh", "-c", "ls /made /c; cat /run/secrets/s; echo $A"))

    with pytest.raises(RunFailed, match="exit code 3"):
        await world.builder.build(request(world, FAILS), on_failure=look)
    assert said == ["/made\n\n/c:\nx\na secret valueb\n"]


async def test_the_shell_is_the_one_of_the_dockerfile(world: World) -> None:
    seen: list[tuple[str, ...]] = []

    async def look(failed: FailedRun) -> None:
        seen.append(failed.shell)

    for line in ('SHELL ["/bin/busybox", "sh", "-e", "-c"]\nRUN false', 'RUN ["/bin/false"]'):
        with pytest.raises(RunFailed):
            await world.builder.build(request(world, f"FROM busybox\n{line}\n"), on_failure=look)
    assert seen == [("/bin/busybox", "sh", "-e"), ("/bin/sh",)]


async def test_who_looks_does_not_hold_up_another_build_of_the_same_step(world: World) -> None:
    looking, done = asyncio.Event(), asyncio.Event()

    async def look(_: FailedRun) -> None:
        looking.set()
        await done.wait()

    wanted = request(world, "FROM busybox\nRUN exit 3\n")
    first = asyncio.create_task(world.builder.build(wanted, on_failure=look))
    await looking.wait()
    with pytest.raises(RunFailed):
        await world.builder.build(wanted)
    assert not first.done()
    done.set()
    with pytest.raises(RunFailed):
        await first


async def test_cancelling_while_somebody_looks_puts_everything_away(world: World) -> None:
    looking = asyncio.Event()

    async def look(failed: FailedRun) -> None:
        async with failed.enter():
            looking.set()
            await asyncio.Event().wait()

    build = asyncio.create_task(world.builder.build(request(world, FAILS), on_failure=look))
    await looking.wait()
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
