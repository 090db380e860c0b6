"""What a build does not do twice changes nothing of what it does: the same bytes, and never a stale one."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.db import Database
from kestrel.build import BuildRequest
from kestrel.build.direct import Donor
from kestrel.build.gather import Gathering
from kestrel.build.tree import Reader
from kestrel.oci.digest import Digest
from kestrel.snapshots import Erofs
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

COPY = "FROM scratch\nCOPY . /app\n"


@pytest.fixture
def world(tmp_path: Path) -> Any:
    made = World(tmp_path, Erofs)
    yield made
    made.database.close()


def settled(world: World) -> None:
    """Give every file of the context a past: what changed just now is looked at again each time."""
    world.file("Dockerfile", COPY)
    now = time.time_ns()
    while time.time_ns() < now + 60_000_000:
        time.sleep(0.01)


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each file of a selection that is opened from now on."""
    seen: list[str] = []
    real = Reader.open

    def note(self: Reader, path: str) -> int:
        seen.append(path)
        return real(self, path)

    monkeypatch.setattr(Reader, "open", note)
    return seen


async def test_a_new_file_is_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(a="a", dir__b="b")
    settled(world)
    seen = opened(monkeypatch)
    await world.build(COPY)
    assert sorted(seen) == ["Dockerfile", "a", "dir/b"]


async def test_an_unchanged_context_is_looked_at_and_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(a="a", dir__b="b")
    settled(world)
    await world.builder.build(_request(world))
    seen = opened(monkeypatch)
    monkeypatch.setattr(Gathering, "_find", lambda *_: pytest.fail("asked for the digest of each file"))
    result = await world.builder.build(_request(world))
    assert seen == []
    assert [step.cached for step in result.steps] == [True]


async def test_of_a_changed_context_only_what_changed_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(a="a", dir__b="b", dir__c="c")
    settled(world)
    await world.builder.build(_request(world))
    world.write(dir__b="another")
    seen = opened(monkeypatch)
    result = await world.builder.build(_request(world))
    assert seen == ["dir/b"]
    assert (world.unpacked(result) / "app/dir/b").read_text() == "another"
    world.builder.prune()
    monkeypatch.setattr(Donor, "content", lambda *_: None)
    anew = await world.builder.build(_request(world))
    assert world.ran() == []
    assert [step.cached for step in anew.steps] == [False]
    assert anew.digest == result.digest


async def test_a_file_of_the_same_size_and_time_is_told_apart(world: World) -> None:
    world.write(a="one")
    settled(world)
    await world.builder.build(_request(world))
    before = os.stat(world.context / "a")
    (world.context / "a").write_text("two")
    os.utime(world.context / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    settled(world)
    result = await world.builder.build(_request(world))
    assert (world.unpacked(result) / "app/a").read_text() == "two"


async def test_an_earlier_layer_whose_bytes_went_bad_gives_none(world: World) -> None:
    world.write(a="a" * 600, b="b" * 600)
    settled(world)
    first = await world.builder.build(_request(world))
    blob = world.content.path(Digest.parse(first.steps[0].layer.blob))
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes().replace(b"a" * 600, b"x" * 600))
    world.write(b="c")
    second = await world.builder.build(_request(world))
    assert (world.unpacked(second) / "app/a").read_text() == "a" * 600


async def test_a_stage_is_not_taken_for_another_after_a_restart(tmp_path: Path) -> None:
    """Mounts of layers get the device numbers of those before, and files in them the same inodes and times."""
    text = "FROM scratch AS a\nCOPY <<x /x\n{}\nx\nFROM scratch\nCOPY --from=a /x /x\n"
    world = World(tmp_path, Erofs)
    for value in ("one", "two", "six"):
        result = await world.build(text.format(value))
        assert (world.unpacked(result) / "x").read_text() == f"{value}\n"
        world.snapshots.close()  # type: ignore[attr-defined] - as a daemon that ends
    world.database.close()


async def test_a_layer_made_as_it_is_written_is_the_one_that_reading_it_makes(world: World, tmp_path: Path) -> None:
    for name in "a.txt dir/one dir/sub/two long/é-ü".split():
        world.file(name, f"this is {name}")
    world.file("long/" + "n" * 120 + "/" + "m" * 120, "deep")
    world.file("empty", "")
    (world.context / "link").symlink_to("dir")
    settled(world)
    result = await world.builder.build(_request(world))
    (tmp_path / "other").mkdir()
    database = Database(tmp_path / "other.db")
    other = Erofs(tmp_path / "other", database)
    diff_id = Digest.parse(result.steps[0].layer.diff_id)
    with world.content.open(diff_id) as tar:
        other.add_layer(diff_id, tar)
    made, read = (home / "layers/sha256" / diff_id.hex / "index" for home in (world.root / "snapshots", other.root))
    assert made.read_bytes() == read.read_bytes()
    other.close()
    database.close()


def _request(world: World) -> BuildRequest:
    return BuildRequest(context=world.context)
