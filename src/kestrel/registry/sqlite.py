"""The registry's metadata in the daemon's SQLite file. Statements and nothing else: the rules are in `repositories`."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from sqlite3 import Connection, Row

from kestrel.base.db import Database
from kestrel.base.units import print_duration
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.registry.metadata import Change, Gone, Guard, Record, TagRule, UpstreamRule
from kestrel.registry.schema import MIGRATIONS

_OF = "(SELECT id FROM registry_repository WHERE name = ?)"
_AMONG = "(SELECT value FROM json_each(?))"
_HISTORY_KEPT = 50  # entries of one tag


class SqliteMetadata:
    """`Metadata` over the one `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(MIGRATIONS)

    # -- blobs

    def shown(self, repository: str, digests: Sequence[Digest]) -> dict[Digest, float]:
        """See `Metadata`; so for all below."""
        rows = self._database.query(
            f"SELECT digest, moment FROM registry_blob WHERE repository = {_OF} AND digest IN {_AMONG}",
            (repository, json.dumps(digests)),
        )
        return {Digest(row["digest"]): row["moment"] for row in rows}

    def shown_in(self, digest: Digest) -> list[str]:  # noqa: D102
        rows = self._database.query(
            "SELECT r.name FROM registry_blob b JOIN registry_repository r ON r.id = b.repository"
            " WHERE b.digest = ? LIMIT 100",
            (digest,),
        )
        return [row["name"] for row in rows]

    def show(self, repository: str, digests: Iterable[Digest], moment: float) -> None:  # noqa: D102
        with self._database.transaction() as connection:
            _show(connection, _number(connection, repository), digests, moment)

    def hide(self, repository: str, digest: Digest, moment: float) -> bool:  # noqa: D102
        with self._database.transaction() as connection:
            row = connection.execute(
                f"DELETE FROM registry_blob WHERE repository = {_OF} AND digest = ? RETURNING repository",
                (repository, digest),
            ).fetchone()
            if row is not None:
                _bury(connection, row["repository"], digest, "", [], moment)
            return row is not None

    # -- manifests and tags

    def find(self, repository: str, version: str) -> "Descriptor | None":  # noqa: D102
        by = "?" if ":" in version else "(SELECT digest FROM registry_tag t WHERE t.repository = r.id AND t.name = ?)"
        rows = self._database.query(
            "SELECT m.* FROM registry_repository r JOIN registry_manifest m ON m.repository = r.id"
            f" WHERE r.name = ? AND m.digest = {by}",
            (repository, version),
        )
        return _descriptor(rows[0]) if rows else None

    def known(self, repository: str, digests: Sequence[Digest]) -> set[Digest]:  # noqa: D102
        rows = self._database.query(
            f"SELECT digest FROM registry_manifest WHERE repository = {_OF} AND digest IN {_AMONG}",
            (repository, json.dumps(digests)),
        )
        return {Digest(row["digest"]) for row in rows}

    def record(  # noqa: D102
        self,
        repository: str,
        records: Sequence[Record],
        tags: Mapping[str, Digest],
        moment: float,
        *,
        actor: str,
        guard: Guard,
    ) -> None:
        with self._database.transaction() as connection:
            number = _number(connection, repository)
            for record in records:
                _record(connection, number, record, moment)
                _show(connection, number, record.shows, moment)
            for tag, digest in tags.items():
                current = _tagged(connection, number, tag)
                guard(tag, current, digest)
                connection.execute(
                    "INSERT INTO registry_tag VALUES (?, ?, ?, ?) ON CONFLICT (repository, name)"
                    " DO UPDATE SET digest = excluded.digest, moment = excluded.moment",
                    (number, tag, digest, moment),
                )
                if current != digest:
                    _remember(connection, number, tag, digest, moment, actor)

    def remove(self, repository: str, digest: Digest, moment: float, *, actor: str, guard: Guard) -> bool:  # noqa: D102
        with self._database.transaction() as connection:
            row = connection.execute(
                f"SELECT repository, media_type FROM registry_manifest WHERE repository = {_OF} AND digest = ?",
                (repository, digest),
            ).fetchone()
            if row is None:
                return False
            number = row["repository"]
            found = connection.execute(
                "SELECT name FROM registry_tag WHERE repository = ? AND digest = ?", (number, digest)
            )
            tags = [each["name"] for each in found]
            for tag in tags:
                guard(tag, digest, None)
                _remember(connection, number, tag, "", moment, actor)
            _bury(connection, number, digest, row["media_type"], tags, moment)
            connection.execute("DELETE FROM registry_manifest WHERE repository = ? AND digest = ?", (number, digest))
            return True

    def untag(self, repository: str, tag: str, moment: float, *, actor: str, guard: Guard) -> bool:  # noqa: D102
        with self._database.transaction() as connection:
            row = connection.execute("SELECT id FROM registry_repository WHERE name = ?", (repository,)).fetchone()
            current = _tagged(connection, row["id"], tag) if row else None
            if current is None:
                return False
            guard(tag, current, None)
            connection.execute("DELETE FROM registry_tag WHERE repository = ? AND name = ?", (row["id"], tag))
            _remember(connection, row["id"], tag, "", moment, actor)
            return True

    # -- listings

    def exists(self, repository: str) -> bool:  # noqa: D102
        return bool(self._database.query("SELECT 1 FROM registry_repository WHERE name = ?", (repository,)))

    def tags(self, repository: str, after: str, limit: int) -> list[str]:  # noqa: D102
        rows = self._database.query(
            f"SELECT name FROM registry_tag WHERE repository = {_OF} AND name > ? ORDER BY name LIMIT ?",
            (repository, after, limit),
        )
        return [row["name"] for row in rows]

    def catalog(self, after: str, limit: int) -> list[str]:  # noqa: D102
        rows = self._database.query(
            "SELECT name FROM registry_repository r WHERE name > ?"
            " AND EXISTS (SELECT 1 FROM registry_manifest m WHERE m.repository = r.id) ORDER BY name LIMIT ?",
            (after, limit),
        )
        return [row["name"] for row in rows]

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:  # noqa: D102
        rows = self._database.query(
            f"SELECT * FROM registry_manifest WHERE repository = {_OF} AND subject = ? AND subject != ''",
            (repository, subject),
        )
        return [_descriptor(row) for row in rows]

    def history(self, repository: str, tag: str = "") -> list[Change]:  # noqa: D102
        rows = self._database.query(
            f"SELECT tag, digest, moment, actor FROM registry_history WHERE repository = {_OF}"
            f"{' AND tag = ?' if tag else ''} ORDER BY number DESC",
            (repository, tag) if tag else (repository,),
        )
        return [
            Change(row["tag"], Digest(row["digest"]) if row["digest"] else None, row["moment"], row["actor"])
            for row in rows
        ]

    def gone(self, repository: str = "") -> list[Gone]:  # noqa: D102
        rows = self._database.query(
            "SELECT r.name, g.* FROM registry_gone g JOIN registry_repository r ON r.id = g.repository"
            " WHERE ? IN ('', r.name) ORDER BY g.moment DESC",
            (repository,),
        )
        return [
            Gone(row["name"], Digest(row["digest"]), row["media_type"], tuple(json.loads(row["tags"])), row["moment"])
            for row in rows
        ]

    # -- rules

    def tag_rules(self) -> list[TagRule]:  # noqa: D102
        rows = self._database.query("SELECT repositories, tags FROM registry_tag_rule ORDER BY 1, 2")
        return [TagRule(row["repositories"], row["tags"]) for row in rows]

    def set_tag_rule(self, rule: TagRule, *, present: bool) -> bool:  # noqa: D102
        statement = (
            "INSERT OR IGNORE INTO registry_tag_rule VALUES (?, ?)"
            if present
            else "DELETE FROM registry_tag_rule WHERE repositories = ? AND tags = ?"
        )
        return bool(self._database.execute(statement, (rule.repositories, rule.tags)))

    def upstreams(self) -> list[UpstreamRule]:  # noqa: D102
        rows = self._database.query("SELECT * FROM registry_upstream ORDER BY prefix")
        return [UpstreamRule(row["prefix"], row["domain"], bool(row["by_default"])) for row in rows]

    def set_upstream(self, rule: UpstreamRule, *, present: bool) -> bool:  # noqa: D102
        if not present:
            return bool(self._database.execute("DELETE FROM registry_upstream WHERE prefix = ?", (rule.prefix,)))
        with self._database.transaction() as connection:
            if rule.default:
                connection.execute("UPDATE registry_upstream SET by_default = 0")
            values = rule.prefix, rule.domain, rule.default
            return connection.execute("INSERT OR REPLACE INTO registry_upstream VALUES (?, ?, ?)", values).rowcount > 0

    def parents(self, repository: str, digest: Digest) -> list[Digest]:  # noqa: D102
        rows = self._database.query(
            f"SELECT manifest FROM registry_reference WHERE repository = {_OF} AND digest = ?", (repository, digest)
        )
        return [Digest(row["manifest"]) for row in rows]

    # -- for the collector

    def reasons(  # noqa: D102
        self, digests: Sequence[Digest], *, unnamed_since: float, gone_since: float
    ) -> dict[Digest, str]:
        among = json.dumps(digests)
        found: dict[Digest, str] = {}
        now = time.time()
        # The strongest reason comes last, as it is the one that stays.
        for row in self._database.query(
            "SELECT g.digest, r.name, t.moment FROM registry_gone t JOIN registry_repository r ON r.id = t.repository"
            " JOIN (SELECT repository, manifest, digest FROM registry_gone_reference UNION ALL"
            "       SELECT repository, digest, digest FROM registry_gone) g"
            f" ON g.repository = t.repository AND g.manifest = t.digest WHERE g.digest IN {_AMONG} AND t.moment > ?",
            (among, gone_since),
        ):
            left = print_duration(max(row["moment"] - gone_since, 0))
            found[Digest(row["digest"])] = f"deleted from {row['name']}, can be restored for {left}"
        for row in self._database.query(
            "SELECT b.digest, r.name, b.moment FROM registry_blob b JOIN registry_repository r ON r.id = b.repository"
            f" WHERE b.digest IN {_AMONG} AND b.moment > ?",
            (among, unnamed_since),
        ):
            age = print_duration(max(now - row["moment"], 0))
            found[Digest(row["digest"])] = f"pushed to {row['name']} {age} ago, no manifest names it yet"
        for row in self._database.query(
            "SELECT f.digest, r.name, f.manifest, t.name AS tag FROM registry_reference f"
            " JOIN registry_repository r ON r.id = f.repository"
            " LEFT JOIN registry_tag t ON t.repository = f.repository AND t.digest = f.manifest"
            f" WHERE f.digest IN {_AMONG}",
            (among,),
        ):
            by = f"{row['name']}:{row['tag']}" if row["tag"] else f"{row['name']}@{Digest(row['manifest']).short}"
            found[Digest(row["digest"])] = f"part of {by}"
        for row in self._database.query(
            "SELECT m.digest, r.name, t.name AS tag FROM registry_manifest m"
            " JOIN registry_repository r ON r.id = m.repository"
            " LEFT JOIN registry_tag t ON t.repository = m.repository AND t.digest = m.digest"
            f" WHERE m.digest IN {_AMONG}",
            (among,),
        ):
            what = f"manifest {row['name']}:{row['tag']}" if row["tag"] else f"untagged manifest of {row['name']}"
            found[Digest(row["digest"])] = what
        return found

    def untagged(self, before: float, limit: int) -> list[tuple[str, Digest]]:  # noqa: D102
        rows = self._database.query(
            "SELECT r.name, m.digest FROM registry_manifest m JOIN registry_repository r ON r.id = m.repository"
            " WHERE m.subject = '' AND m.moment < ?"
            " AND NOT EXISTS (SELECT 1 FROM registry_tag t WHERE t.repository = m.repository AND t.digest = m.digest)"
            " AND NOT EXISTS (SELECT 1 FROM registry_reference f WHERE f.digest = m.digest"
            "                 AND f.repository = m.repository) LIMIT ?",
            (before, limit),
        )
        return [(row["name"], Digest(row["digest"])) for row in rows]

    def named(self) -> list[Digest]:  # noqa: D102
        rows = self._database.query("SELECT digest FROM registry_manifest UNION SELECT digest FROM registry_reference")
        return [Digest(row["digest"]) for row in rows]

    def forget(self, digests: Sequence[Digest], before: float) -> None:  # noqa: D102
        with self._database.transaction(durable=False) as connection:  # a row without bytes shows nothing
            for table in ("registry_blob", "registry_gone"):
                connection.execute(
                    f"DELETE FROM {table} WHERE digest IN {_AMONG} AND moment <= ?", (json.dumps(digests), before)
                )

    def expire(self, before: float) -> None:  # noqa: D102
        self._database.execute("DELETE FROM registry_gone WHERE moment <= ?", (before,))

    def counts(self) -> dict[str, int]:  # noqa: D102
        tables = {"repositories": "repository", "manifests": "manifest", "tags": "tag", "blobs": "blob"}
        rows = {word: self._database.query(f"SELECT count(*) AS n FROM registry_{t}") for word, t in tables.items()}
        return {word: found[0]["n"] for word, found in rows.items()}


def _number(connection: Connection, name: str) -> int:
    row = connection.execute("SELECT id FROM registry_repository WHERE name = ?", (name,)).fetchone()
    if row is None:
        row = connection.execute("INSERT INTO registry_repository (name) VALUES (?) RETURNING id", (name,)).fetchone()
    return int(row["id"])


def _show(connection: Connection, number: int, digests: Iterable[Digest], moment: float) -> None:
    connection.executemany(
        "INSERT INTO registry_blob VALUES (?, ?, ?)"
        " ON CONFLICT (repository, digest) DO UPDATE SET moment = excluded.moment",
        [(number, digest, moment) for digest in digests],
    )


def _record(connection: Connection, number: int, record: Record, moment: float) -> None:
    told = record.descriptor
    connection.execute(
        "INSERT INTO registry_manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (repository, digest) DO UPDATE SET media_type = excluded.media_type, moment = excluded.moment",
        (
            number,
            told.digest,
            told.media_type,
            told.size,
            record.subject,
            told.artifact_type,
            json.dumps(told.annotations),
            moment,
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO registry_reference VALUES (?, ?, ?)",
        [(number, told.digest, digest) for digest in record.references],
    )
    connection.execute("DELETE FROM registry_gone WHERE repository = ? AND digest = ?", (number, told.digest))


def _tagged(connection: Connection, number: int, tag: str) -> "Digest | None":
    row = connection.execute("SELECT digest FROM registry_tag WHERE repository = ? AND name = ?", (number, tag))
    found = row.fetchone()
    return Digest(found["digest"]) if found else None


def _remember(connection: Connection, number: int, tag: str, digest: str, moment: float, actor: str) -> None:
    connection.execute(
        "INSERT INTO registry_history (repository, tag, digest, moment, actor) VALUES (?, ?, ?, ?, ?)",
        (number, tag, digest, moment, actor),
    )
    connection.execute(
        "DELETE FROM registry_history WHERE repository = ? AND tag = ? AND number <="
        " (SELECT number FROM registry_history WHERE repository = ? AND tag = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (number, tag, number, tag, _HISTORY_KEPT),
    )


def _bury(
    connection: Connection, number: int, digest: Digest, media_type: str, tags: Sequence[str], moment: float
) -> None:
    """Leave a tombstone, which names all that the manifest named."""
    connection.execute(
        "INSERT OR REPLACE INTO registry_gone VALUES (?, ?, ?, ?, ?)",
        (number, digest, media_type, json.dumps(tags), moment),
    )
    connection.execute(
        "INSERT OR IGNORE INTO registry_gone_reference SELECT digest, repository, manifest FROM registry_reference"
        " WHERE repository = ? AND manifest = ?",
        (number, digest),
    )


def _descriptor(row: Row) -> Descriptor:
    return Descriptor(
        media_type=row["media_type"],
        digest=Digest(row["digest"]),
        size=row["size"],
        artifact_type=row["artifact_type"],
        annotations=json.loads(row["annotations"]),
    )
