"""Named volumes: directories under one root, and the table that says which exist.

A volume's data lives in `<root>/<name>/data`. The row is written after the directory exists, and a removal renames the
directory to `.gone-...` before it deletes, so a row always has data and a crash leaves only names with a dot to clear.
A directory without a row is never cleared: it may be all that is left of somebody's data after a lost database.
Who uses a volume is counted in memory by the name of the user: the engine says so again when it recovers its
containers, and a removed daemon cannot leave a volume locked for ever.
"""

import os
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from kestrel.base.clock import Clock, SystemClock
from kestrel.base.db import Database
from kestrel.base.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, nearest
from kestrel.base.files import sync_directory
from kestrel.volumes.model import Volume

MIGRATIONS = {
    "volumes-1": """
        CREATE TABLE volume (
            name TEXT PRIMARY KEY, created REAL NOT NULL, size INTEGER NOT NULL, labels TEXT NOT NULL
        ) WITHOUT ROWID
    """,
}

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
"""Docker's rule: at least two characters, so that a Windows drive is never a volume."""


class VolumeService:
    """Creates, finds and removes volumes. Calls are short; `remove` and `usage` walk the data, so use a thread."""

    def __init__(self, root: Path, database: Database, *, clock: Clock | None = None) -> None:
        self._root = root
        self._database = database
        self._clock = clock or SystemClock()
        self._users: dict[str, set[str]] = {}
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        database.migrate(MIGRATIONS)
        self._clear_rubbish()

    def create(self, name: str, *, size: int = 0, labels: Mapping[str, str] | None = None) -> Volume:
        """Make an empty volume. Raises AlreadyExists, and InvalidArgument for a name docker would not take."""
        if not NAME.fullmatch(name):
            raise InvalidArgument(
                f"invalid volume name {name!r}",
                hint="use letters, digits, and _ . - after the first character; two characters at least",
            )
        if self._row(name) is not None:
            raise AlreadyExists(f"a volume named {name} exists already", volume=name)
        data = self._root / name / "data"
        if data.is_dir() and any(data.iterdir()):
            raise Conflict(
                f"{data} has data of a volume that the database does not know",
                hint="move that directory away, or choose another name",
            )
        data.mkdir(parents=True, exist_ok=True)
        os.chmod(data, 0o755)
        sync_directory(data.parent)
        sync_directory(self._root)
        moment = self._clock.now()
        encoded = msgspec.json.encode(dict(labels or {})).decode()
        self._database.execute("INSERT INTO volume VALUES (?, ?, ?, ?)", (name, moment.timestamp(), size, encoded))
        return Volume(name=name, path=str(data), created=moment, size=size, labels=dict(labels or {}))

    def ensure(self, name: str, *, size: int = 0, labels: Mapping[str, str] | None = None) -> Volume:
        """Return the volume, made if there was none."""
        try:
            return self.get(name)
        except NotFound:
            return self.create(name, size=size, labels=labels)

    def get(self, name: str) -> Volume:
        """Return one volume; raises NotFound with the nearest name."""
        row = self._row(name)
        if row is None:
            close = nearest(name, [volume.name for volume in self.all()])
            raise NotFound(f"no such volume: {name}", hint=f"did you mean {close}?" if close else None, volume=name)
        return row

    def path(self, name: str) -> Path:
        """Return where the data of a volume is; raises NotFound."""
        return Path(self.get(name).path)

    def all(self) -> list[Volume]:
        """Return all volumes by name."""
        rows = self._database.query("SELECT * FROM volume ORDER BY name")
        return [self._volume(row["name"], row["created"], row["size"], row["labels"]) for row in rows]

    def resize(self, name: str, size: int) -> Volume:
        """Record another size; raises NotFound."""
        self.get(name)
        self._database.execute("UPDATE volume SET size = ? WHERE name = ?", (size, name))
        return self.get(name)

    def hold(self, name: str, user: str) -> None:
        """Note that `user` (a container's id) uses the volume; until `release` it cannot be removed."""
        self.get(name)
        self._users.setdefault(name, set()).add(user)

    def release(self, name: str, user: str) -> None:
        """Note that `user` no longer uses the volume; saying so twice is fine."""
        users = self._users.get(name, set())
        users.discard(user)
        if not users:
            self._users.pop(name, None)

    def users(self, name: str) -> frozenset[str]:
        """Return who uses the volume now."""
        return frozenset(self._users.get(name, ()))

    def remove(self, name: str, *, force: bool = False) -> None:
        """Delete a volume and its data. Raises NotFound, and Conflict while it is used unless `force`."""
        self.get(name)
        users = self.users(name)
        if users and not force:
            raise Conflict(
                f"volume {name} is in use by {', '.join(sorted(user[:12] for user in users))}",
                hint="remove those containers first",
                volume=name,
            )
        self._database.execute("DELETE FROM volume WHERE name = ?", (name,))
        self._users.pop(name, None)
        gone = self._root / f".gone-{name}-{os.urandom(4).hex()}"
        os.rename(self._root / name, gone)
        shutil.rmtree(gone)

    def prune(self) -> list[Volume]:
        """Remove every volume nobody uses and return them."""
        unused = [volume for volume in self.all() if not self._users.get(volume.name)]
        for volume in unused:
            self.remove(volume.name)
        return unused

    def usage(self, name: str) -> int:
        """Return the bytes of disk that the data takes (allocated blocks, hard links counted once)."""
        seen: set[tuple[int, int]] = set()
        total = 0
        for directory, _, names in os.walk(self.path(name)):
            for entry in (directory, *(os.path.join(directory, child) for child in names)):
                try:
                    info = os.lstat(entry)
                except FileNotFoundError:
                    continue  # a running container deletes as we count
                if (info.st_dev, info.st_ino) not in seen:
                    seen.add((info.st_dev, info.st_ino))
                    total += info.st_blocks * 512
        return total

    def _row(self, name: str) -> Volume | None:
        rows = self._database.query("SELECT * FROM volume WHERE name = ?", (name,))
        return self._volume(name, rows[0]["created"], rows[0]["size"], rows[0]["labels"]) if rows else None

    def _volume(self, name: str, created: float, size: int, labels: str) -> Volume:
        return Volume(
            name=name,
            path=str(self._root / name / "data"),
            created=datetime.fromtimestamp(created, UTC),
            size=size,
            labels=msgspec.json.decode(labels),
        )

    def _clear_rubbish(self) -> None:
        for entry in self._root.glob(".gone-*"):
            shutil.rmtree(entry)
