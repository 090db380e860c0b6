"""The one SQLite file: opened once, migrated by named steps, written in short transactions.

WAL lets readers go on beside the writer (https://www.sqlite.org/wal.html). `synchronous=FULL` makes a commit
durable: what was acknowledged survives a power cut, not only kill -9. Tables that may lose their last moments
(events) say so and live in memory. A write about something that a power cut ends anyway (a sandbox, a lease of an
address) need not wait for the disk: `durable=False`. It survives kill -9 all the same, and never outlives an earlier
write.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Database:
    """One connection shared by the daemon's threads, with a lock around each transaction.

    Packages own their tables: each passes its migrations, an ordered mapping of name to SQL script, to `migrate`.
    """

    def __init__(self, path: "str | Path") -> None:
        self.path = str(path)
        self._lock = threading.RLock()
        self._depth = 0
        self._durable = True  # as the pragma above
        self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY) WITHOUT ROWID")

    def migrate(self, steps: Mapping[str, str]) -> None:
        """Run the scripts that have not run yet, in order, each in a transaction of its own."""
        done = {row["name"] for row in self.query("SELECT name FROM migration")}
        for name, script in steps.items():
            if name not in done:
                with self.transaction() as connection:
                    for statement in script.split(";\n"):
                        if statement.strip():
                            connection.execute(statement)
                    connection.execute("INSERT INTO migration VALUES (?)", (name,))

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Everything inside happens or nothing does; nests into the outer transaction of the same thread.

        Without `durable` it is not synced to disk by itself, but with the next one that is (`PRAGMA synchronous`).
        """
        with self._lock:
            if self._depth:
                yield self._connection
                return
            if durable is not self._durable:
                self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have rolled back by itself, on a full disk
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def query(self, sql: str, parameters: "tuple[object, ...] | Mapping[str, object]" = ()) -> list[sqlite3.Row]:
        """Return all rows of a read."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def execute(
        self, sql: str, parameters: "tuple[object, ...] | Mapping[str, object]" = (), *, durable: bool = True
    ) -> int:
        """Run one write in its own transaction (see there for `durable`); returns the number of rows it touched."""
        with self.transaction(durable=durable) as connection:
            return connection.execute(sql, parameters).rowcount

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with self._lock:
            self._connection.close()
