"""Reading, tailing and following log files."""

import asyncio
from pathlib import Path

import pytest

from kestrel.base.errors import NotFound
from kestrel.logs import LogOptions, read, render
from kestrel.logs.changes import Changes
from kestrel.logs.cri_format import Entry, line, parse

SECOND = 1_000_000_000


def write(path: Path, *texts: str, start: int = 1, stream: str = "stdout") -> None:
    with path.open("ab") as file:
        for number, text in enumerate(texts):
            file.write(line(Entry((start + number) * SECOND, stream, text.encode())))


async def texts(path: Path, **options) -> list[str]:
    return [entry.text.decode() async for entry in read(path, LogOptions(**options))]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "0.log"


async def test_everything_is_read_in_order_over_rotated_files(log):
    write(log.with_name("0.log.2"), "a")
    write(log.with_name("0.log.1"), "b", start=2)
    write(log, "c", start=3)
    log.with_name("0.log.tmp").write_bytes(b"not ours")
    assert await texts(log) == ["a", "b", "c"]


async def test_tail_takes_the_last_lines_over_files(log):
    write(log.with_name("0.log.1"), "a", "b")
    write(log, "c", start=3)
    assert await texts(log, tail=2) == ["b", "c"]
    assert await texts(log, tail=0) == []
    assert await texts(log, tail=9) == ["a", "b", "c"]


async def test_tail_of_a_long_file_reads_only_its_end(log, monkeypatch):
    write(log, *(f"line {n:06d} {'x' * 80}" for n in range(20000)))
    seen = []
    monkeypatch.setattr(
        "kestrel.logs.reader.parse",
        lambda raw: seen.append(1) or parse(raw),
    )
    got = await texts(log, tail=3)
    assert [text[:11] for text in got] == ["line 019997", "line 019998", "line 019999"]
    assert len(seen) < 10


async def test_lines_longer_than_a_block_are_tailed_whole(log):
    write(log, "a", "b" * 200_000, "c")
    assert [len(text) for text in await texts(log, tail=2)] == [200_000, 1]


async def test_since_until_and_stream_choose_lines(log):
    write(log, "a", "b", "c", "d")
    write(log, "e", start=5, stream="stderr")
    assert await texts(log, since=2 * SECOND, until=4 * SECOND) == ["b", "c"]
    assert await texts(log, stream="stderr") == ["e"]
    assert await texts(log, stream="stdout", tail=1) == ["d"]
    assert await texts(log, since=4 * SECOND, tail=5) == ["d", "e"]


async def test_parts_of_a_long_line_are_joined(log):
    with log.open("wb") as file:
        file.write(line(Entry(SECOND, "stdout", b"one ", True)))
        file.write(line(Entry(SECOND, "stderr", b"other")))
        file.write(line(Entry(2 * SECOND, "stdout", b"two", False)))
        file.write(line(Entry(3 * SECOND, "stdout", b"open", True)))
    entries = [entry async for entry in read(log, LogOptions())]
    assert [(entry.text, entry.moment // SECOND, entry.partial) for entry in entries] == [
        (b"other", 1, False),
        (b"one two", 1, False),
        (b"open", 3, True),
    ]
    assert [chunk async for chunk in render(log, LogOptions())][-1] == b"open"


async def test_render_stamps_and_limits(log):
    write(log, "hello", "world")
    chunks = [chunk async for chunk in render(log, LogOptions(timestamps=True, tail=1))]
    assert chunks == [b"1970-01-01T00:00:02.000000000Z world\n"]
    assert b"".join([chunk async for chunk in render(log, LogOptions(limit=8))]) == b"hello\nwo"


async def test_a_missing_log_is_not_found(log):
    with pytest.raises(NotFound, match=r"no log at 0\.log"):
        await texts(log)


async def follow(path: Path, ended: asyncio.Event, changes: Changes, **options) -> list[str]:
    stream = read(path, LogOptions(follow=True, **options), ended=ended.is_set, changes=changes)
    return [entry.text.decode() async for entry in stream]


async def test_follow_gives_out_what_comes_and_ends_with_the_container(log):
    ended, changes = asyncio.Event(), Changes()
    write(log, "a")
    task = asyncio.create_task(follow(log, ended, changes))
    await asyncio.sleep(0.05)
    write(log, "b")
    await asyncio.sleep(0.05)
    write(log, "c")
    ended.set()
    assert await task == ["a", "b", "c"]
    assert changes._inotify is None


async def test_follow_is_woken_rather_than_polling(log):
    write(log, "a")
    ended = asyncio.Event()
    stream = read(log, LogOptions(follow=True, tail=0), ended=ended.is_set)
    pending = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    write(log, "b")
    entry = await asyncio.wait_for(pending, 0.2)
    assert entry.text == b"b"
    await stream.aclose()


async def test_follow_loses_nothing_over_rotations(log):
    ended, changes = asyncio.Event(), Changes()
    write(log, "0")
    task = asyncio.create_task(follow(log, ended, changes))
    for number in range(1, 60):
        write(log, str(number))
        if number % 3 == 0:
            for old in (3, 2, 1):
                source = log.with_name(f"0.log.{old}")
                if source.exists():
                    source.rename(log.with_name(f"0.log.{old + 1}"))
            log.rename(log.with_name("0.log.1"))
            write(log)
        if number % 6 == 0:
            await asyncio.sleep(0.005)
    ended.set()
    assert await task == [str(number) for number in range(60)]


async def test_a_line_written_in_two_goes_is_one_line(log):
    ended, changes = asyncio.Event(), Changes()
    whole = line(Entry(SECOND, "stdout", b"hello world"))
    log.write_bytes(whole[:20])
    task = asyncio.create_task(follow(log, ended, changes, tail=5))
    await asyncio.sleep(0.02)
    with log.open("ab") as file:
        file.write(whole[20:])
    await asyncio.sleep(0.02)
    ended.set()
    assert await task == ["hello world"]


async def test_follow_works_without_inotify(log, monkeypatch):
    def refused():
        raise OSError(24, "too many")

    monkeypatch.setattr("kestrel.linux.inotify.Inotify", refused)
    ended, changes = asyncio.Event(), Changes()
    write(log, "a")
    task = asyncio.create_task(follow(log, ended, changes))
    await asyncio.sleep(0.01)
    write(log, "b")
    ended.set()
    assert await task == ["a", "b"]
