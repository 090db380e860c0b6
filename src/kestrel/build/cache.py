"""What earlier steps left: records by key, with the key's own structure kept so that a miss can be explained.

A key is the digest of everything that reaches a step's layer, as a JSON tree: the operation, the layers below, the
environment, the digests of files. The tree is stored with the record. When no record has the key, the nearest
earlier one of the same place in the same Dockerfile is compared with it (`explain`), and the difference is the reason.

Tables: `build_step` (key to layer), `build_slot` (place to the key it had last), `build_files` (listings of files by
digest), `build_selection` (what a pattern selected in an immutable filesystem), `build_keys` (where in a layer keys
are).
"""

import hashlib
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from kestrel.base.db import Database
from kestrel.build.leaks import Key

MIGRATIONS: Final = {
    "build-cache-1": """
CREATE TABLE build_step (
    key TEXT PRIMARY KEY, title TEXT NOT NULL, inputs BLOB NOT NULL,
    diff_id TEXT NOT NULL, blob TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    seconds REAL NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE build_slot (
    project TEXT NOT NULL, stage TEXT NOT NULL, position INTEGER NOT NULL, title TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (project, stage, position)
) WITHOUT ROWID;
CREATE TABLE build_files (digest TEXT PRIMARY KEY, listing BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE build_selection (key TEXT PRIMARY KEY, digest TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID
""",
    "build-cache-2": """
CREATE TABLE build_keys (diff_id TEXT PRIMARY KEY, found BLOB NOT NULL) WITHOUT ROWID
""",
}
_USED_STEP = 3600
"""Seconds by which a record's last use may be behind: an unchanged build should not have to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What a step left: its layer and the blob that holds it. `diff_id` is empty when nothing changed."""

    diff_id: str = ""
    blob: str = ""
    media_type: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step that ran once."""

    key: str
    title: str
    inputs: dict[str, Any]
    layer: Layer
    seconds: float
    created: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a Dockerfile: which project (context and file), which stage, which step of it."""

    project: str
    stage: str
    position: int
    title: str


def key_of(inputs: dict[str, Any]) -> str:
    """Return the key of a step's inputs: the digest of their one canonical form."""
    return hashlib.sha256(msgspec.json.encode(inputs, order="deterministic")).hexdigest()


class Cache:
    """The tables. Methods are quick and may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(MIGRATIONS)

    # Steps

    def lookup(self, key: str) -> StepRecord | None:
        """Return the record with this key."""
        rows = self._database.query("SELECT * FROM build_step WHERE key = ?", (key,))
        if not rows:
            return None
        row = rows[0]
        if row["used"] < time.time() - _USED_STEP:
            self._database.execute("UPDATE build_step SET used = ? WHERE key = ?", (int(time.time()), key))
        return StepRecord(
            key=key,
            title=row["title"],
            inputs=msgspec.json.decode(row["inputs"]),
            layer=Layer(diff_id=row["diff_id"], blob=row["blob"], media_type=row["media_type"], size=row["size"]),
            seconds=row["seconds"],
            created=row["created"],
        )

    def record(self, record: StepRecord) -> None:
        """Keep what a step left, durably: the next build may rely on it."""
        layer = record.layer
        values = (layer.diff_id, layer.blob, layer.media_type, layer.size, record.seconds)
        self._database.execute(
            "INSERT OR REPLACE INTO build_step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.key,
                record.title,
                msgspec.json.encode(record.inputs),
                *values,
                record.created,
                int(time.time()),
            ),
        )

    def point(self, key: str, layer: Layer) -> None:
        """Let a record name another layer that the same inputs once left."""
        values = (layer.diff_id, layer.blob, layer.media_type, layer.size, key)
        self._database.execute(
            "UPDATE build_step SET diff_id = ?, blob = ?, media_type = ?, size = ? WHERE key = ?", values
        )

    def forget(self, key: str) -> None:
        """Drop a record whose layer is gone."""
        self._database.execute("DELETE FROM build_step WHERE key = ?", (key,))

    # Places

    def previous(self, slot: Slot) -> tuple[str, StepRecord | None]:
        """Return the key of what stood at this place last, and its record if there still is one.

        It is the same instruction of the stage, else what stood at the same position; nothing is an empty key.
        """
        rows = self._database.query(
            "SELECT position, title, key FROM build_slot WHERE project = ? AND stage = ?", (slot.project, slot.stage)
        )
        same = [row for row in rows if row["title"] == slot.title]
        at = min(same, key=lambda row: abs(row["position"] - slot.position), default=None)
        if at is None:
            at = next((row for row in rows if row["position"] == slot.position), None)
        return ("", None) if at is None else (at["key"], self.lookup(at["key"]))

    def occupy(self, slots: Iterable[tuple[Slot, str]]) -> None:
        """Note which key each place has now; writes only what changed."""
        slots = list(slots)
        known: dict[tuple[str, str, int], tuple[str, str]] = {}
        for project in {slot.project for slot, _ in slots}:
            for row in self._database.query("SELECT * FROM build_slot WHERE project = ?", (project,)):
                known[project, row["stage"], row["position"]] = (row["title"], row["key"])
        changed = [
            (slot.project, slot.stage, slot.position, slot.title, key)
            for slot, key in slots
            if known.get((slot.project, slot.stage, slot.position)) != (slot.title, key)
        ]
        if changed:
            with self._database.transaction() as connection:
                connection.executemany("INSERT OR REPLACE INTO build_slot VALUES (?, ?, ?, ?, ?)", changed)

    # Files

    def keep_listing(self, digest: str, listing: bytes) -> None:
        """Keep the list of files behind a digest, for explanations."""
        self._database.execute(
            "INSERT OR IGNORE INTO build_files VALUES (?, ?, ?)", (digest, zlib.compress(listing, 1), int(time.time()))
        )

    def listing(self, digest: str) -> bytes | None:
        """Return the list of files behind a digest."""
        rows = self._database.query("SELECT listing FROM build_files WHERE digest = ?", (digest,))
        return zlib.decompress(rows[0]["listing"]) if rows else None

    def selection(self, key: str) -> str | None:
        """Return the digest that a selection in an immutable filesystem has."""
        rows = self._database.query("SELECT digest FROM build_selection WHERE key = ?", (key,))
        return str(rows[0]["digest"]) if rows else None

    def keep_selection(self, key: str, digest: str) -> None:
        """Remember it."""
        self._database.execute(
            "INSERT OR REPLACE INTO build_selection VALUES (?, ?, ?)", (key, digest, int(time.time()))
        )

    def keys(self, diff_id: str) -> list[Key] | None:
        """Return the keys that were found in a layer; None when nobody has looked."""
        rows = self._database.query("SELECT found FROM build_keys WHERE diff_id = ?", (diff_id,))
        return msgspec.json.decode(rows[0]["found"], type=list[Key]) if rows else None

    def keep_keys(self, diff_id: str, keys: list[Key]) -> None:
        """Remember them: where they are, never what they are."""
        self._database.execute(
            "INSERT OR REPLACE INTO build_keys VALUES (?, ?)", (diff_id, msgspec.json.encode(keys)), durable=False
        )

    # Keeping and removing

    def layers(self) -> list[str]:
        """Return the diff_ids of the layers that records name: what a collection must keep for the cache."""
        return [row["diff_id"] for row in self._database.query("SELECT diff_id FROM build_step WHERE diff_id != ''")]

    def blobs(self) -> list[str]:
        """Return the digests of the blobs that records name."""
        return [row["blob"] for row in self._database.query("SELECT blob FROM build_step WHERE blob != ''")]

    def held(self) -> list[tuple[str, str, Layer, int, str]]:
        """Return key, title, layer, when it was used last, and where it stood last, of every record."""
        rows = self._database.query(
            "SELECT s.*, p.project, p.stage, p.position FROM build_step s LEFT JOIN build_slot p ON p.key = s.key"
            " GROUP BY s.key"
        )
        return [
            (
                row["key"],
                row["title"],
                Layer(diff_id=row["diff_id"], blob=row["blob"], media_type=row["media_type"], size=row["size"]),
                row["used"],
                f"{row['stage']} {row['position']} of {row['project']}" if row["project"] else "",
            )
            for row in rows
        ]

    def drop(self, keys: Iterable[str], *, unused_since: float) -> None:
        """Drop records, and what is only known for explanations and was not written since a moment."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM build_step WHERE key = ?", [(key,) for key in keys])
            connection.execute("DELETE FROM build_keys WHERE diff_id NOT IN (SELECT diff_id FROM build_step)")
            for table in ("build_files", "build_selection"):
                connection.execute(f"DELETE FROM {table} WHERE used <= ?", (int(unused_since),))

    def prune(self, *, unused_for: float = 0.0) -> list[Layer]:
        """Drop the records not used for so many seconds; returns their layers, which may be garbage now."""
        limit = int(time.time() - unused_for)
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT * FROM build_step WHERE used <= ?", (limit,)).fetchall()
            connection.execute("DELETE FROM build_step WHERE used <= ?", (limit,))
            connection.execute("DELETE FROM build_files WHERE used <= ?", (limit,))
            connection.execute("DELETE FROM build_selection WHERE used <= ?", (limit,))
        return [
            Layer(diff_id=row["diff_id"], blob=row["blob"], media_type=row["media_type"], size=row["size"])
            for row in rows
        ]
