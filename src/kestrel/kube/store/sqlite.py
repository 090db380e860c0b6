"""The durable store: every object in memory as bytes, every change in SQLite before anyone hears of it.

Reads never touch the file: objects are kept as canonical JSON in sorted collections, which makes a list a slice. A
write checks its condition, then waits in a queue; one task takes what has gathered, gives each write its
resourceVersion, commits all in one transaction in a thread, and only then makes them visible, tells watchers and
answers. Writers of one key take turns, so a condition that held when it was checked still holds in the transaction.

The table holds one row per object and no history, so the file does not grow with time. resourceVersions are reserved in
blocks: the file knows only a ceiling, and a restart goes on behind it. Volatile resources (events) are in memory only,
for as long as they were told to live.
"""

from __future__ import annotations

import asyncio
import sqlite3
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kestrel.base.clock import Clock, SystemClock
from kestrel.base.db import Database
from kestrel.base.errors import Internal, KestrelError, ResourceExhausted, Unavailable
from kestrel.kube.store.store import Change, Exists, JSONObject, Key, Match, Missing, Page, Record, Stale
from kestrel.kube.store.watch import BACKLOG, CAPACITY, Watcher, Window

BLOCK = 10_000
"""resourceVersions reserved by one write of the ceiling."""
MAX_VOLATILE = 20_000
"""Volatile objects kept at most; the oldest go first."""
_LAST = "\U0010ffff"

_MIGRATIONS = {
    "kube-objects-1": """
        CREATE TABLE kube_object (
            resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
            data BLOB NOT NULL, PRIMARY KEY (resource, namespace, name));
        CREATE TABLE kube_version (id INTEGER PRIMARY KEY CHECK (id = 1), ceiling INTEGER NOT NULL);
        INSERT INTO kube_version VALUES (1, 0)
    """
}


_Records = list[Record]  # inside SqliteStore the name `list` is a verb


class Collection:
    """The objects of one resource in key order."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self._keys: list[Key] = []

    def put(self, record: Record) -> None:
        """Add or replace an object."""
        if record.key not in self.records:
            insort(self._keys, record.key)
        self.records[record.key] = record

    def remove(self, key: Key) -> None:
        """Take an object away."""
        del self.records[key]
        del self._keys[bisect_left(self._keys, key)]

    def between(self, resource: str, namespace: str, after: Key | None) -> list[Record]:
        """Return the objects of a namespace (all when empty) behind a key."""
        low = bisect_left(self._keys, Key(resource, namespace, "")) if namespace else 0
        high = bisect_right(self._keys, Key(resource, namespace, _LAST)) if namespace else len(self._keys)
        if after is not None:
            low = max(low, bisect_right(self._keys, after))
        records = self.records
        return [records[key] for key in self._keys[low:high]]


@dataclass(slots=True)
class _Write:
    """A change on its way to the disk. `obj` is None for a delete."""

    type: str
    key: Key
    obj: JSONObject
    before: Record | None
    done: asyncio.Future[Record]
    volatile: bool


class SqliteStore:
    """`ObjectStore` over the platform's database; see the module. Use from one event loop, close at the end."""

    def __init__(
        self,
        database: Database,
        *,
        volatile: Mapping[str, float] | None = None,
        window: int = CAPACITY,
        backlog: int = BACKLOG,
        clock: Clock | None = None,
    ) -> None:
        """`volatile` maps resources that are kept in memory only to their life in seconds; 0 is for ever."""
        database.migrate(_MIGRATIONS)
        self._database = database
        self._volatile = dict(volatile or {})
        self._clock = clock or SystemClock()
        self._collections: dict[str, Collection] = {}
        self._ceiling = int(database.query("SELECT ceiling FROM kube_version")[0]["ceiling"])
        self._assigned = self._ceiling + 1
        self._window = Window(self._assigned, capacity=window, backlog=backlog)
        self._queue: list[_Write] = []
        self._busy: dict[Key, asyncio.Future[Record]] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kube-store")
        self._closed = False
        self._expiries: deque[tuple[float, Key, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._load()

    def _load(self) -> None:
        sql = "SELECT resource, namespace, name, version, data FROM kube_object ORDER BY resource, namespace, name"
        for resource, namespace, name, version, data in self._database.query(sql):
            self._collection(resource).put(Record(Key(resource, namespace, name), version, data))

    def _collection(self, resource: str) -> Collection:
        found = self._collections.get(resource)
        if found is None:
            found = self._collections[resource] = Collection()
        return found

    @property
    def version(self) -> int:
        """The newest resourceVersion that reads see."""
        return self._window.latest

    def get(self, key: Key) -> Record | None:
        """Return the object, None when there is none."""
        return self._collection(key.resource).records.get(key)

    def list(
        self,
        resource: str,
        namespace: str = "",
        *,
        match: Match | None = None,
        limit: int = 0,
        after: Key | None = None,
        version: int | None = None,
    ) -> Page:
        """Return objects in key order; see `ObjectStore.list`."""
        at = self.version if version is None else version
        records = self._collection(resource).between(resource, namespace, after)
        if at < self.version:
            records = self._rewound(records, resource, namespace, after, at)
        if match is not None:
            records = [record for record in records if match(record)]
        if limit and len(records) > limit:
            kept = records[:limit]
            return Page(kept, at, len(records) - limit, kept[-1].key)
        return Page(records, at)

    def _rewound(self, records: _Records, resource: str, namespace: str, after: Key | None, version: int) -> _Records:
        """Undo the changes made after `version`."""
        then: dict[Key, Record | None] = {}
        for change in self._window.since(version):
            key = change.record.key
            if key.resource == resource and namespace in ("", key.namespace) and (after is None or key > after):
                then[key] = change.before
        if not then:
            return records
        merged = {record.key: record for record in records} | then
        return [record for _, record in sorted(merged.items()) if record is not None]

    def watch(
        self, resource: str, namespace: str = "", *, since: int, name: str = "", match: Match | None = None
    ) -> Watcher:
        """Listen to changes after version `since`; raises Expired when they are no longer all known."""
        return self._window.watch(resource, namespace, name, since, match)

    async def create(self, key: Key, obj: JSONObject) -> Record:
        """Store a new object; raises Exists."""
        await self._turn(key)
        if self.get(key) is not None:
            raise Exists(key)
        return await self._write("ADDED", key, obj, None)

    async def update(self, key: Key, obj: JSONObject, *, expected: int) -> Record:
        """Replace an object that still is at version `expected`; see `ObjectStore.update`."""
        current = await self._expect(key, expected)
        obj["metadata"]["resourceVersion"] = str(current.version)
        if current.object == obj:
            return current
        return await self._write("MODIFIED", key, obj, current)

    async def delete(self, key: Key, *, expected: int) -> Record:
        """Remove an object that still is at version `expected`; returns its last state with the new version."""
        current = await self._expect(key, expected)
        return await self._write("DELETED", key, current.copy(), current)

    async def _expect(self, key: Key, expected: int) -> Record:
        await self._turn(key)
        current = self.get(key)
        if current is None:
            raise Missing(key)
        if current.version != expected:
            raise Stale(key)
        return current

    async def _turn(self, key: Key) -> None:
        """Wait until no write of this key is under way."""
        while (writing := self._busy.get(key)) is not None:
            await asyncio.wait([writing])

    async def _write(self, kind: str, key: Key, obj: JSONObject, before: Record | None) -> Record:
        if self._closed:
            raise Unavailable("the object store is closed")
        done: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._enqueue(_Write(kind, key, obj, before, done, key.resource in self._volatile))
        # A caller that is cancelled goes away; its write does not, and keeps its key until it is through.
        return await asyncio.shield(done)

    def _enqueue(self, write: _Write) -> None:
        self._busy[write.key] = write.done
        self._queue.append(write)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush(), name="kube-store")

    async def _flush(self) -> None:
        """Take what has gathered, again and again, until nothing waits."""
        while self._queue:
            batch, self._queue = self._queue, []
            changes = [self._number(write) for write in batch]
            durable = [change for change, write in zip(changes, batch, strict=True) if not write.volatile]
            ceiling = self._assigned + BLOCK if self._assigned > self._ceiling else 0
            try:
                if durable or ceiling:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._thread, self._commit, durable, ceiling)
            except Exception as error:  # noqa: BLE001 - each writer gets it
                self._fail(batch, error)
                continue
            self._ceiling = ceiling or self._ceiling
            for change, write in zip(changes, batch, strict=True):
                self._publish(change, write)

    def _number(self, write: _Write) -> Change:
        self._assigned += 1
        return Change(write.type, Record.of(write.key, self._assigned, write.obj), write.before)

    def _commit(self, changes: Iterable[Change], ceiling: int) -> None:
        """Make changes durable; runs in the store's thread."""
        with self._database.transaction() as connection:
            for change in changes:
                record = change.record
                if change.type == "DELETED":
                    sql = "DELETE FROM kube_object WHERE resource = ? AND namespace = ? AND name = ?"
                    connection.execute(sql, record.key)
                else:
                    sql = "INSERT OR REPLACE INTO kube_object VALUES (?, ?, ?, ?, ?)"
                    connection.execute(sql, (*record.key, record.version, record.data))
            if ceiling:
                connection.execute("UPDATE kube_version SET ceiling = ?", (ceiling,))

    def _publish(self, change: Change, write: _Write) -> None:
        if change.type == "DELETED":
            self._collection(write.key.resource).remove(write.key)
        else:
            self._collection(write.key.resource).put(change.record)
            if self._volatile.get(write.key.resource):
                self._let_expire(change.record)
        self._window.append(change)
        self._busy.pop(write.key, None)
        if not write.done.done():
            write.done.set_result(change.record)

    def _fail(self, batch: Sequence[_Write], error: Exception) -> None:
        for write in batch:
            self._busy.pop(write.key, None)
            if not write.done.done():
                write.done.set_exception(_storage_error(error))
                write.done.exception()  # a cancelled caller will not fetch it

    def _let_expire(self, record: Record) -> None:
        deadline = self._clock.monotonic() + self._volatile[record.key.resource]
        self._expiries.append((deadline, record.key, record.version))
        if len(self._expiries) > MAX_VOLATILE or self._timer is None:
            self._expire()

    def _expire(self) -> None:
        """Delete what has outlived its time, and set the clock for the next."""
        self._timer = None
        now = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        while self._expiries and (self._expiries[0][0] <= now or len(self._expiries) > MAX_VOLATILE):
            _, key, version = self._expiries.popleft()
            record = self.get(key)
            if record is not None and record.version == version and key not in self._busy:
                self._enqueue(_Write("DELETED", key, record.copy(), record, loop.create_future(), volatile=True))
        if self._expiries and not self._closed:
            self._timer = loop.call_later(self._expiries[0][0] - now, self._expire)

    async def close(self) -> None:
        """Finish the writes that wait, then stop. The database stays open."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._flusher is not None:
            await asyncio.wait([self._flusher])
        self._thread.shutdown()


def _says_full(error: BaseException | None) -> bool:
    """Whether SQLITE_FULL is behind an error: it ends the transaction, and then the ROLLBACK fails on top of it."""
    while error is not None:
        if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
            return True
        error = error.__context__
    return False


def _storage_error(error: Exception) -> KestrelError:
    if isinstance(error, KestrelError):
        return error
    if _says_full(error):
        return ResourceExhausted("the disk that holds the object store is full", hint="free some space and try again")
    made = Internal(f"the object store cannot write: {error}")
    made.__cause__ = error
    return made
