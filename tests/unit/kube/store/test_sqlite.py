"""The durable store: the suite every store passes, and what is particular to this one."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import ResourceExhausted
from kestrel.kube.client import is_expired
from kestrel.kube.store import SqliteStore
from kestrel.testing.object_store_suite import VOLATILE, WINDOW, ObjectStoreSuite, key, put, thing


class Owned(SqliteStore):
    """Closes its database with itself."""

    async def close(self) -> None:
        await super().close()
        self._database.close()


class TestSqliteStore(ObjectStoreSuite):
    async def open(self, directory: Path) -> SqliteStore:
        return Owned(Database(directory / "kestrel.db"), volatile={VOLATILE: 3600.0}, window=WINDOW)


class HandClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
async def store(tmp_path):
    made = Owned(Database(tmp_path / "kestrel.db"), volatile={VOLATILE: 60.0}, backlog=8)
    yield made
    await made.close()


async def test_concurrent_writes_share_a_transaction(store: SqliteStore) -> None:
    commits = []
    commit = store._commit

    def counted(*arguments):
        commits.append(arguments)
        commit(*arguments)

    store._commit = counted
    await asyncio.gather(*(put(store, f"n{number}") for number in range(500)))
    assert len(commits) < 10
    assert len(store.list("things").records) == 500


async def test_a_full_disk_refuses_the_write_and_the_store_goes_on(store: SqliteStore) -> None:
    await put(store, "before")
    store._database.execute("PRAGMA max_page_count = 20")
    with pytest.raises(ResourceExhausted, match="full"):
        await put(store, "big", spec="x" * 1_000_000)
    assert store.get(key("big")) is None
    store._database.execute("PRAGMA max_page_count = 1000000")
    assert (await put(store, "after")).version == store.version


async def test_a_reader_that_does_not_read_is_cut_off_and_told(store: SqliteStore) -> None:
    watch = store.watch("things", since=store.version)
    await asyncio.gather(*(put(store, f"n{number}") for number in range(20)))
    with pytest.raises(Exception, match="too old") as caught:
        await watch.batch()
    assert is_expired(caught.value)
    watch.close()


async def test_volatile_objects_live_as_long_as_they_were_told(tmp_path) -> None:
    clock = HandClock()
    store = Owned(Database(tmp_path / "kestrel.db"), volatile={VOLATILE: 60.0}, clock=clock)
    for name in ("a", "b"):
        await store.create(key(name, resource=VOLATILE), thing(name))
        clock.seconds += 50
    watch = store.watch(VOLATILE, since=store.version)
    store._expire()
    assert [(kind, change.record.key.name) for kind, change in await watch.batch()] == [("DELETED", "a")]
    assert [record.key.name for record in store.list(VOLATILE).records] == ["b"]
    watch.close()
    await store.close()


_WRITER = """
import asyncio, sys
from kestrel.base.db import Database
from kestrel.kube.store import SqliteStore
from kestrel.testing.object_store_suite import put

async def main():
    store = SqliteStore(Database(sys.argv[1]))
    async def write(writer):
        for number in range(100_000):
            record = await put(store, f"w{writer}-{number}")
            print(record.key.name, record.version, flush=True)
    await asyncio.gather(*(write(writer) for writer in range(8)))
asyncio.run(main())
"""


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path) -> None:
    path = tmp_path / "kestrel.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(  # noqa: ASYNC220 - read with blocking calls until it is killed
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        lines += [line.split() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    store = Owned(Database(path))
    for name, version in lines:
        record = store.get(key(name))
        assert record is not None
        assert record.version == int(version)
    assert store.version >= max(int(version) for _, version in lines)
    await store.close()
