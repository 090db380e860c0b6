"""The small tools of floor 0."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kestrel.base import files, ids, units
from kestrel.base.bus import Bus, Lagged
from kestrel.base.clock import rfc3339_nano
from kestrel.base.db import Database
from kestrel.base.errors import KINDS, InvalidArgument, KestrelError, NotFound, nearest


def test_every_kind_of_error_has_a_wire_word_of_its_own():
    def leaves(cls):
        return [leaf for sub in cls.__subclasses__() if sub.__module__ == "kestrel.base.errors" for leaf in [sub]]

    assert set(KINDS.values()) == set(leaves(KestrelError))


def test_the_nearest_word_is_found_whatever_its_case():
    assert nearest("COPPY", ["ADD", "COPY", "CMD"]) == "COPY"
    assert nearest("xyzzy", ["ADD", "COPY", "CMD"]) is None


def test_a_prefix_finds_an_id_and_two_matches_are_an_error():
    known = ["abc1", "abd2"]
    assert ids.find("abc", known) == "abc1"
    with pytest.raises(InvalidArgument, match="matches 2"):
        ids.find("ab", known)
    with pytest.raises(NotFound):
        ids.find("x", known)
    with pytest.raises(NotFound):
        ids.find("", known)


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("64k", 65536), ("1.5GiB", 1610612736), ("2m", 2097152), ("1G", 1073741824)]
)
def test_sizes_are_read_as_docker_reads_them(text, size):
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1x", "m", "1 m m"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(InvalidArgument):
        units.parse_size(text)


def test_nanoseconds_are_printed_with_nine_digits():
    assert rfc3339_nano(1_700_000_000_000_000_042) == "2023-11-14T22:13:20.000000042Z"


def test_replace_leaves_the_old_file_when_the_new_one_cannot_be_written(tmp_path):
    path = tmp_path / "state"
    files.replace(path, b"old")
    with pytest.raises(TypeError):
        files.replace(path, "not bytes")  # type: ignore[arg-type] # on purpose
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_lock_is_free_again_when_its_holder_was_killed(tmp_path):
    program = textwrap.dedent(
        f"""
        import time
        from kestrel.base.files import locked
        with locked({str(tmp_path / "lock")!r}):
            print("held", flush=True)
            time.sleep(60)
        """
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), files.locked(tmp_path / "lock", blocking=False):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with files.locked(tmp_path / "lock", blocking=False):
        pass


def test_committed_rows_survive_a_kill_in_the_middle_of_writing(tmp_path):
    program = textwrap.dedent(
        f"""
        from kestrel.base.db import Database
        database = Database({str(tmp_path / "db")!r})
        database.migrate({{"1": "CREATE TABLE t (n INTEGER)"}})
        for n in range(100000):
            with database.transaction() as connection:
                connection.execute("INSERT INTO t VALUES (?)", (2 * n,))
                connection.execute("INSERT INTO t VALUES (?)", (2 * n + 1,))
            print(n, flush=True)
        """
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None
    for _ in range(20):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    last = max([last, *map(int, writer.stdout.read().split()[:-1])])
    writer.stdout.close()
    writer.wait()
    database = Database(tmp_path / "db")
    rows = [row["n"] for row in database.query("SELECT n FROM t ORDER BY n")]
    database.close()
    assert rows[: 2 * last + 2] == list(range(2 * last + 2)), "an acknowledged transaction was lost"
    assert len(rows) % 2 == 0, "half a transaction was kept"


def test_a_write_that_is_not_durable_survives_kill_and_is_seen_at_once(tmp_path: Path):
    database = Database(tmp_path / "db")
    database.migrate({"one": "CREATE TABLE t (n INTEGER)"})
    for number, durable in enumerate((False, True, False, False)):
        database.execute("INSERT INTO t VALUES (?)", (number,), durable=durable)
        mode = database.query("PRAGMA synchronous")[0][0]
        assert mode == (2 if durable else 1), "FULL is 2, NORMAL is 1 (sqlite.org/pragma.html#pragma_synchronous)"
    database.execute("INSERT INTO t VALUES (4)")
    assert database.query("PRAGMA synchronous")[0][0] == 2, "a write waits for the disk unless it says otherwise"
    other = sqlite3.connect(tmp_path / "db")  # what a kill would leave: files, and no closing of ours
    try:
        assert [row[0] for row in other.execute("SELECT n FROM t ORDER BY n")] == [0, 1, 2, 3, 4]
    finally:
        other.close()
        database.close()


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path):
    database = Database(tmp_path / "db")
    database.migrate({"1": "CREATE TABLE t (n INTEGER)"})
    with pytest.raises(RuntimeError), database.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        raise RuntimeError
    assert database.query("SELECT * FROM t") == []
    database.close()


async def test_every_reader_of_the_bus_sees_every_event_in_order():
    bus: Bus[int] = Bus()
    one, even = bus.subscribe(), bus.subscribe(lambda n: n % 2 == 0)
    for n in range(4):
        bus.publish(n)
    assert [await one.next() for _ in range(4)] == [0, 1, 2, 3]
    assert [await even.next() for _ in range(2)] == [0, 2]


async def test_a_reader_that_falls_behind_is_told_and_holds_nobody_up():
    bus: Bus[int] = Bus(backlog=2)
    slow = bus.subscribe()
    for n in range(5):
        bus.publish(n)
    assert [await slow.next(), await slow.next()] == [0, 1]
    with pytest.raises(Lagged):
        await asyncio.wait_for(slow.next(), 1)
