"""Digests of files, remembered: an unchanged file is not read again.

A file is taken for unchanged while device, inode, size, modification time and change time are the same. The change
time cannot be set by hand, so `touch -d` does not fool it. A file that changed within the last moments is not
remembered: a second write could fall into the same tick of the clock ("racy git" is the same problem,
https://git-scm.com/docs/racy-git). Nor is one in a stage's root: that is a mount whose device number the next mount
gets again, with inodes numbered alike and times all clamped to one.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import Final

from kestrel.base.db import Database
from kestrel.base.errors import Conflict
from kestrel.build.tree import FILE, Entry, Source, Tree

MIGRATIONS: Final = {
    "build-file-1": """
CREATE TABLE build_file (
    dev INTEGER NOT NULL, ino INTEGER NOT NULL,
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
    digest BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (dev, ino)
) WITHOUT ROWID
"""
}
RACY_NS: Final = 50_000_000
KEPT_FILE: Final = 1 << 16
KEPT: Final = 64 << 20
"""Files up to so many bytes, and so many bytes of them, stay in memory once read: copying them needs no second read."""
_BATCH = 800  # SQLite takes at least 999 parameters
_PIECE = 1 << 20


class FileDigests:
    """The table, and the way past it for what it does not know. Use from a worker thread: it reads files."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(MIGRATIONS)

    def of(self, tree: Tree, source: Source, kept: "dict[str, bytes] | None" = None) -> dict[str, bytes]:
        """Return the SHA-256 of each regular file of a selection, by its path in it.

        What had to be read goes into `kept` as well, as far as it is small. Raises Conflict when a file changes while
        it is read.
        """
        files = [entry for entry in source.entries if entry.kind == FILE]
        known = self._lookup(files) if tree.lasting else {}
        found: dict[str, bytes] = {}
        unknown: list[Entry] = []
        for entry in files:
            row = known.get(entry.inode)
            if row is not None and row[0] == entry.size and row[1:3] == entry.stamps:
                found[entry.path] = row[3]
            else:
                unknown.append(entry)
        if unknown:
            now = time.time_ns()
            room = KEPT if kept is not None else 0
            with tree.opened(source) as reader:
                for entry in unknown:
                    fd = reader.open(entry.path)
                    if kept is None or entry.size > min(room, KEPT_FILE):
                        found[entry.path] = digest_file(fd, entry, source)
                        continue
                    data = kept[entry.path] = _small(fd, entry, source)
                    found[entry.path] = hashlib.sha256(data).digest()
                    room -= entry.size
            if tree.lasting:
                self._remember(((e, found[e.path]) for e in unknown), now)
        return found

    def forget_unused(self, days: int = 30) -> int:
        """Drop what no build has asked about for so long; returns how many rows went."""
        return self._database.execute("DELETE FROM build_file WHERE used < ?", (int(time.time()) - days * 86400,))

    def _lookup(self, files: Sequence[Entry]) -> dict[tuple[int, int], tuple[int, int, int, bytes]]:
        by_device: dict[int, list[int]] = {}
        for entry in files:
            by_device.setdefault(entry.inode[0], []).append(entry.inode[1])
        found: dict[tuple[int, int], tuple[int, int, int, bytes]] = {}
        for device, inodes in by_device.items():
            for at in range(0, len(inodes), _BATCH):
                batch = inodes[at : at + _BATCH]
                marks = ",".join("?" * len(batch))
                rows = self._database.query(
                    f"SELECT ino, size, mtime, ctime, digest FROM build_file WHERE dev = ? AND ino IN ({marks})",
                    (_signed(device), *map(_signed, batch)),
                )
                for ino, size, mtime, ctime, digest in rows:
                    found[device, ino & _MASK] = (size, mtime, ctime, digest)
        return found

    def _remember(self, digested: Iterable[tuple[Entry, bytes]], before: int) -> None:
        moment = int(time.time())
        rows = [
            (_signed(e.inode[0]), _signed(e.inode[1]), e.size, *e.stamps, digest, moment)
            for e, digest in digested
            if e.stamps[1] < before - RACY_NS
        ]
        if rows:
            with self._database.transaction() as connection:
                connection.executemany("INSERT OR REPLACE INTO build_file VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


_MASK = (1 << 64) - 1


def _signed(number: int) -> int:
    """SQLite's integers are signed; inode numbers may use all 64 bits."""
    return number - (1 << 64) if number >> 63 else number


def digest_file(fd: int, entry: Entry, source: Source) -> bytes:
    """Return the SHA-256 of an open file and close it. Raises Conflict when it is no longer what `entry` says."""
    try:
        hasher = hashlib.sha256()
        while piece := os.read(fd, _PIECE):
            hasher.update(piece)
        check_unchanged(fd, entry, source)
        return hasher.digest()
    finally:
        os.close(fd)


def _small(fd: int, entry: Entry, source: Source) -> bytes:
    """Return what an open file holds and close it. Raises Conflict when it is no longer what `entry` says."""
    try:
        data = os.read(fd, entry.size + 1)
        check_unchanged(fd, entry, source)
        if len(data) != entry.size:
            raise _changed(entry, source)
        return data
    finally:
        os.close(fd)


def check_unchanged(fd: int, entry: Entry, source: Source) -> None:
    """Raise Conflict when an open file is not the one that was looked at."""
    status = os.fstat(fd)
    if (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != (entry.size, *entry.stamps):
        raise _changed(entry, source)


def _changed(entry: Entry, source: Source) -> Conflict:
    return Conflict(
        f"`{os.path.join(source.path, entry.path).rstrip('/')}` changed while it was read",
        hint="build again when nothing writes to it",
    )
