"""A build that is cancelled has cleaned up when it says so, wherever it was."""

import asyncio
import gc
import os
import random
from pathlib import Path
from typing import Any

import pytest

from kestrel.build.outputs import parse_output
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
TEXT = """\
FROM busybox AS a
COPY dir /d
RUN echo 1 > /one
FROM busybox
RUN --mount=from=a,source=/d,target=/m --mount=type=cache,id=cache-{number},from=a,source=/d,target=/c \
    --mount=type=secret,id=key --mount=target=/all,rw --mount=source=dir,target=/dir ls /m /c | wc -l > /{number}
COPY dir /e{number}
WORKDIR /w{number}
"""


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    for number in range(300):
        made.file(f"dir/f{number}", f"{number}" * 1000)
    yield made
    made.database.close()


def leavings(world: World) -> list[str]:
    """Return what is there only while a build runs."""
    caches = list(world.root.glob("builder/caches/.*"))
    work = [*world.root.glob("builder/scratch/*"), *world.root.glob(".kestrel-*"), *world.root.glob("run/*")]
    return [*world.snapshots.keys(), *(str(path.relative_to(world.root)) for path in (*caches, *work))]


@pytest.mark.parametrize("seed", range(3))
async def test_a_build_leaves_nothing_wherever_it_is_cancelled(world: World, seed: int) -> None:
    moments = random.Random(seed)
    await world.build(TEXT.format(number="first"), secrets={"key": b"a secret value"})
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        world.file(f"dir/f{number}", "changed")
        out = parse_output(f"type=tar,dest={world.root}/{number}.tar")
        options = {"secrets": {"key": b"a secret value"}, "outputs": (out,)}
        build = asyncio.create_task(world.build(TEXT.format(number=number), **options))
        await asyncio.sleep(moments.random() * 0.4)
        build.cancel()
        await asyncio.wait([build])
        gc.collect()
        assert leavings(world) == []
        assert len(os.listdir("/proc/self/fd")) <= descriptors
    await world.build(TEXT.format(number="last"), secrets={"key": b"a secret value"})
