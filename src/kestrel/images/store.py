"""Which images this host has and what they are called: the tables, and nothing else.

An image is a row by its manifest's digest, with every blob it needs. Names (`domain/path:tag`) point to one image
each; pins remember by which digests of which repository (of the manifest, or of an index it was chosen from) it was
fetched, so that `name@sha256:...` is found again. Blobs must be durable before a row names them.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kestrel.base.db import Database
from kestrel.oci.digest import Digest
from kestrel.oci.reference import Reference

_MIGRATIONS: Final = {
    "images-1": """
        CREATE TABLE image (
            digest TEXT PRIMARY KEY,
            id TEXT NOT NULL,
            media_type TEXT NOT NULL,
            size INTEGER NOT NULL,
            added REAL NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX image_id ON image (id);
        CREATE TABLE image_blob (
            image TEXT NOT NULL REFERENCES image(digest) ON DELETE CASCADE,
            digest TEXT NOT NULL,
            PRIMARY KEY (image, digest)
        ) WITHOUT ROWID;
        CREATE TABLE image_layer (
            image TEXT NOT NULL REFERENCES image(digest) ON DELETE CASCADE,
            diff_id TEXT NOT NULL,
            PRIMARY KEY (image, diff_id)
        ) WITHOUT ROWID;
        CREATE TABLE image_name (
            name TEXT PRIMARY KEY,
            image TEXT NOT NULL REFERENCES image(digest)
        ) WITHOUT ROWID;
        CREATE INDEX image_name_image ON image_name (image);
        CREATE TABLE image_pin (
            repository TEXT NOT NULL,
            digest TEXT NOT NULL,
            image TEXT NOT NULL REFERENCES image(digest) ON DELETE CASCADE,
            PRIMARY KEY (digest, repository, image)
        ) WITHOUT ROWID
    """,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image as the table has it."""

    digest: Digest
    id: Digest
    media_type: str
    size: int
    added: float = 0.0


class Images:
    """The tables of images, names and pins."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(_MIGRATIONS)

    def add(self, row: Row, blobs: Iterable[Digest], layers: Iterable[Digest], names: Iterable[Reference]) -> None:
        """Record an image and point names to it, in one transaction."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO image VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size",
                (row.digest, row.id, row.media_type, row.size, time.time()),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO image_blob VALUES (?, ?)", [(row.digest, blob) for blob in blobs]
            )
            connection.executemany(
                "INSERT OR IGNORE INTO image_layer VALUES (?, ?)", [(row.digest, layer) for layer in layers]
            )
            for name in names:
                self.point(name, row.digest)

    def point(self, name: Reference, image: Digest) -> None:
        """Make a name stand for an image: by its tag if it has one, and by its digest."""
        with self._database.transaction() as connection:
            if name.tag:
                connection.execute(
                    "INSERT INTO image_name VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET image = excluded.image",
                    (_key(name), image),
                )
            for digest in {name.digest or image, image}:
                connection.execute("INSERT OR IGNORE INTO image_pin VALUES (?, ?, ?)", (name.name, digest, image))

    def named(self, name: Reference) -> Row | None:
        """Return what a name stands for; its digest decides when it has one."""
        if name.digest:
            return self.digested(name.digest)
        return self._one("JOIN image_name n ON n.image = i.digest WHERE n.name = ?", _key(name))

    def digested(self, digest: Digest) -> Row | None:
        """Return the image of that id, manifest digest, or index digest it was pulled by."""
        return (
            self._one("WHERE i.id = ? ORDER BY i.added DESC", digest)
            or self._one("WHERE i.digest = ?", digest)
            or self._one("JOIN image_pin p ON p.image = i.digest WHERE p.digest = ? ORDER BY i.added DESC", digest)
        )

    def prefixed(self, digits: str) -> list[Row]:
        """Return images whose id, or else whose manifest digest, begins with these hex digits."""
        for column in ("id", "digest"):
            rows = self._rows(f"WHERE i.{column} LIKE ? ORDER BY i.added DESC", f"sha256:{digits}%")
            if rows:
                return rows
        return []

    def all(self) -> list[Row]:
        """Return every image, the youngest first."""
        return self._rows("ORDER BY i.added DESC, i.digest")

    def names(self, image: Digest) -> list[Reference]:
        """Return the names of an image."""
        rows = self._database.query("SELECT name FROM image_name WHERE image = ? ORDER BY name", (image,))
        return [Reference.parse(row["name"]) for row in rows]

    def every_name(self) -> list[Reference]:
        """Return the names of all images."""
        return [Reference.parse(row["name"]) for row in self._database.query("SELECT name FROM image_name")]

    def pins(self, image: Digest) -> list[Reference]:
        """Return `repository@digest` for every digest the image can be asked for by."""
        rows = self._database.query("SELECT repository, digest FROM image_pin WHERE image = ? ORDER BY 1, 2", (image,))
        return [Reference.parse(f"{row['repository']}@{row['digest']}") for row in rows]

    def forget(self, name: Reference) -> None:
        """Take a name away."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM image_name WHERE name = ?", (_key(name),))

    def delete(self, image: Digest) -> None:
        """Remove an image and all that points to it."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM image_name WHERE image = ?", (image,))
            connection.execute("DELETE FROM image WHERE digest = ?", (image,))

    def blobs(self, image: "Digest | None" = None) -> list[Digest]:
        """Return the blobs that an image, or with None any image, needs."""
        return self._digests("image_blob", "digest", image)

    def layers(self, image: "Digest | None" = None) -> list[Digest]:
        """Return the diff_ids that an image, or with None any image, needs."""
        return self._digests("image_layer", "diff_id", image)

    def shared_layers(self) -> set[Digest]:
        """Return the diff_ids that more than one image has."""
        rows = self._database.query("SELECT diff_id FROM image_layer GROUP BY diff_id HAVING count(*) > 1")
        return {Digest(row["diff_id"]) for row in rows}

    def _digests(self, table: str, column: str, image: "Digest | None") -> list[Digest]:
        condition, values = ("WHERE image = ?", (image,)) if image else ("", ())
        rows = self._database.query(f"SELECT DISTINCT {column} AS digest FROM {table} {condition}", values)
        return [Digest(row["digest"]) for row in rows]

    def _one(self, condition: str, value: str) -> Row | None:
        rows = self._rows(f"{condition} LIMIT 1", value)
        return rows[0] if rows else None

    def _rows(self, condition: str, *values: str) -> list[Row]:
        rows = self._database.query(f"SELECT i.* FROM image i {condition}", values)
        return [
            Row(
                digest=Digest(row["digest"]),
                id=Digest(row["id"]),
                media_type=row["media_type"],
                size=row["size"],
                added=row["added"],
            )
            for row in rows
        ]


def _key(name: Reference) -> str:
    return f"{name.name}:{name.tag}"
