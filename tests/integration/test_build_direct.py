"""A COPY that writes its layer straight away leaves what one through a writable root leaves, to the last byte."""

import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import Conflict
from kestrel.build.work import Worker
from kestrel.dockerfile import DockerfileError
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BASE = (
    "FROM busybox\nRUN mkdir -p /to/dir/sub /there/deep && echo old > /to/a.txt && echo old > /to/dir/one.txt "
    "&& chmod 750 /to/dir && chown 7:8 /there && ln -s /there /link && ln -s nowhere /to/b.txt && rm -r /tmp\n"
)
CASES = [
    "COPY a.txt /x",
    "COPY a.txt b.txt /to/",
    "COPY dir /to/dir",
    "COPY . /to",
    "COPY . /",
    "COPY dir /link/inside",
    "COPY a.txt /link",
    "COPY --chown=5:6 --chmod=640 dir /new/p/q",
    "COPY --chown=3000000:6 dir /new",  # more than a field of a header can say
    "COPY --chown=app:staff --chmod=u+x,go-w dir /to/dir",
    "COPY --chmod=u=rwX,go=rX a.txt links /m/",
    "COPY a.txt /tmp",
    "COPY <<one <<two /to/\n1\none\n2\ntwo",
    "COPY links /links",
    "COPY --link dir /to/dir",
    "COPY --parents dir/./sub a.txt /p/",
    "ADD a.txt /to/b.txt",
    "COPY --exclude=*.txt dir /to/dir",
    "COPY nothing* /to/",
    "COPY empty /to/dir",
    "COPY --from=busybox /etc /to/etc",
    "COPY long /long",
]


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    for name in "a.txt b.txt dir/one.txt dir/sub/two.txt dir/z.txt dir/z-a links/f long/é-ü".split():
        made.file(name, f"this is {name}")
    made.file("long/" + "n" * 120 + "/" + "m" * 120, "deep")
    made.file("big", "x" * 3_000_000)
    (made.context / "links/to").symlink_to("f")
    (made.context / "dir/sub").chmod(0o700)
    (made.context / "empty").mkdir()
    yield made
    made.database.close()


async def test_both_ways_give_the_same_digest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = {case: (await world.build(f"{BASE}{case}\n")).digest for case in CASES}
    monkeypatch.setattr(Worker, "_copy_directly", lambda *_: None)
    await world.build("FROM busybox\n")
    world.builder.prune()
    through = {case: (await world.build(f"{BASE}{case}\n")).digest for case in CASES}
    assert world.reasons()  # it did run again
    assert {case: digest for case, digest in direct.items() if through[case] != digest} == {}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("COPY dir /to/a.txt", "`/to/a.txt` is a file, and a directory is needed there"),
        ("COPY a.txt /to/a.txt/x", "`/to/a.txt` is a file"),
        ("COPY one.txt /to/", "cannot copy a file over the directory `one.txt`"),
    ],
)
async def test_what_is_in_the_way_is_named(world: World, case: str, message: str) -> None:
    world.file("one.txt", "")
    with pytest.raises(DockerfileError, match=message) as caught:
        await world.build(f"{BASE}RUN mkdir /to/one.txt\n{case}\n")
    assert "Dockerfile:" in str(caught.value)


async def test_names_of_one_file_stay_one_file(world: World) -> None:
    result = await world.build(
        "FROM busybox AS a\nRUN mkdir /h && echo x > /h/b && ln /h/b /h/a && ln /h/b /h/c\n"
        "FROM scratch\nCOPY --from=a /h /h\n"
    )
    top = Path(world.snapshots.view([world.config(result).rootfs.diff_ids[-1]]).lowers[0].path) / "h"
    assert len({(top / name).stat().st_ino for name in "abc"}) == 1


async def test_a_file_that_shrinks_while_it_is_read_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from kestrel.build import direct

    monkeypatch.setattr(direct, "check_unchanged", lambda *_: os.truncate(world.context / "big", 10))
    with pytest.raises(Conflict, match="became shorter"):
        await world.build("FROM scratch\nCOPY big /big\n")
