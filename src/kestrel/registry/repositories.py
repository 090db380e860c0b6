"""What the registry keeps: repositories, their manifests and tags, and which blobs each of them may show.

Bytes live in the content store, shared with the image store. A repository shows a blob only after somebody pushed or
mounted it there: knowing a digest is no right to read it. Each change is one transaction, made after its bytes are
durable, so what was acknowledged is whole after a crash, and what was not leaves bytes that a collection removes.

For the collector (`roots`): a manifest keeps itself and everything it names; a blob that no manifest names is kept
for a day from when it was pushed, mounted or last asked about, because a client that is told "exists" will not send
it again. Checks of existence that lead to a promise are made under a lease of the content store, so that a
collection running at the same moment sees them.

All methods are synchronous; the door calls them in threads.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition, InvalidArgument, NotFound
from kestrel.content import Store
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index, Manifest, decode
from kestrel.oci.reference import is_repository, is_tag

_MIGRATIONS = {
    "registry-1": """
        CREATE TABLE registry_repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
        CREATE TABLE registry_blob (
            repository INTEGER NOT NULL REFERENCES registry_repository(id),
            digest TEXT NOT NULL,
            moment REAL NOT NULL,
            PRIMARY KEY (repository, digest)
        ) WITHOUT ROWID;
        CREATE INDEX registry_blob_digest ON registry_blob (digest);
        CREATE TABLE registry_manifest (
            repository INTEGER NOT NULL REFERENCES registry_repository(id),
            digest TEXT NOT NULL,
            media_type TEXT NOT NULL,
            size INTEGER NOT NULL,
            subject TEXT NOT NULL,
            artifact_type TEXT NOT NULL,
            annotations TEXT NOT NULL,
            moment REAL NOT NULL,
            PRIMARY KEY (repository, digest)
        ) WITHOUT ROWID;
        CREATE INDEX registry_manifest_subject ON registry_manifest (repository, subject, digest) WHERE subject != '';
        CREATE TABLE registry_reference (
            repository INTEGER NOT NULL,
            manifest TEXT NOT NULL,
            digest TEXT NOT NULL,
            PRIMARY KEY (repository, manifest, digest),
            FOREIGN KEY (repository, manifest) REFERENCES registry_manifest(repository, digest) ON DELETE CASCADE
        ) WITHOUT ROWID;
        CREATE TABLE registry_tag (
            repository INTEGER NOT NULL,
            name TEXT NOT NULL,
            digest TEXT NOT NULL,
            moment REAL NOT NULL,
            PRIMARY KEY (repository, name),
            FOREIGN KEY (repository, digest) REFERENCES registry_manifest(repository, digest) ON DELETE CASCADE
        ) WITHOUT ROWID;
        CREATE INDEX registry_tag_digest ON registry_tag (repository, digest)
    """,
}
_REFRESH = 3600.0  # a link asked about is made young again only when it is this old: a HEAD should not be a write


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest as it was pushed."""

    descriptor: Descriptor
    data: bytes


class MissingChildren(FailedPrecondition):
    """A manifest names what its repository does not have; `digests` are the ones."""

    def __init__(self, repository: str, digests: Sequence[Digest]) -> None:
        super().__init__(
            f"the manifest names {len(digests)} thing{'s' * (len(digests) != 1)} that {repository} does not have",
            hint="push the blobs and the manifests of an index first",
        )
        self.digests = tuple(digests)


class Repositories:
    """The tables of the registry over a content store."""

    def __init__(
        self,
        database: Database,
        content: Store,
        *,
        sparse: bool = False,
        unnamed_seconds: float = 24 * 3600.0,
        changed: "Callable[[str], None] | None" = None,
    ) -> None:
        self._database = database
        self._content = content
        self._sparse = sparse
        self._unnamed = unnamed_seconds
        self._listeners: list[Callable[[str], None]] = [changed] if changed else []
        database.migrate(_MIGRATIONS)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a repository's name after each change of its manifests or tags, in any thread."""
        self._listeners.append(listener)

    # -- blobs

    def has_blob(self, repository: str, digest: Digest) -> "int | None":
        """Return the size of a blob the repository shows, or None. It then stays at least as long as a new one."""
        rows = self._database.query(
            "SELECT b.repository, b.moment FROM registry_blob b JOIN registry_repository r ON r.id = b.repository"
            " WHERE r.name = ? AND b.digest = ?",
            (repository, digest),
        )
        if not rows:
            return None
        with self._content.lease():
            try:
                size = self._content.size(digest)
            except NotFound:
                return None
            if rows[0]["moment"] < time.time() - min(_REFRESH, self._unnamed / 2):
                self._database.execute(
                    "UPDATE registry_blob SET moment = ? WHERE repository = ? AND digest = ?",
                    (time.time(), rows[0]["repository"], digest),
                )
            return size

    def add_blob(self, repository: str, digest: Digest) -> None:
        """Show a blob that is in the content store. Hold a lease from before it was committed until this returns."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO registry_blob VALUES (?, ?, ?)"
                " ON CONFLICT (repository, digest) DO UPDATE SET moment = excluded.moment",
                (self._repository(repository), digest, time.time()),
            )

    def mount(self, repository: str, digest: Digest, source: "str | None") -> bool:
        """Show a blob that `source`, or with None any repository, shows already; returns whether there was one."""
        with self._content.lease():
            if source is None:
                rows = self._database.query("SELECT 1 FROM registry_blob WHERE digest = ? LIMIT 1", (digest,))
                found = bool(rows) and self._content.has(digest)
            else:
                found = self.has_blob(source, digest) is not None
            if found:
                self.add_blob(repository, digest)
        return found

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Stop showing a blob; returns whether it was shown."""
        return bool(
            self._database.execute(
                "DELETE FROM registry_blob WHERE digest = ?"
                " AND repository = (SELECT id FROM registry_repository WHERE name = ?)",
                (digest, repository),
            )
        )

    # -- manifests and tags

    def manifest(self, repository: str, version: str) -> "Stored | None":
        """Return the manifest under a tag or a digest, or None."""
        by = (
            "m.digest = ?"
            if ":" in version
            else "m.digest = (SELECT digest FROM registry_tag t WHERE t.repository = r.id AND t.name = ?)"
        )
        rows = self._database.query(
            "SELECT m.digest, m.media_type, m.size FROM registry_manifest m"
            f" JOIN registry_repository r ON r.id = m.repository WHERE r.name = ? AND {by}",
            (repository, version),
        )
        if not rows:
            return None
        digest = Digest(rows[0]["digest"])
        data = self._content.read(digest)
        return Stored(Descriptor(media_type=rows[0]["media_type"], digest=digest, size=len(data)), data)

    def put_manifest(
        self, repository: str, digest: Digest, media_type: str, data: bytes, tags: Iterable[str] = ()
    ) -> "Manifest | Index":
        """Store a manifest under its digest and these tags; returns it decoded.

        Raises InvalidArgument for what is no manifest of that type, DataLoss for another digest, MissingChildren.
        """
        document = decode(data, media_type)
        with self._content.lease():
            missing = [] if self._sparse else self._missing(repository, document)
            if missing:
                raise MissingChildren(repository, missing)
            self._content.put(data, digest)
            with self._database.transaction():
                self._record(repository, digest, media_type, len(data), document)
                self._tag(repository, digest, tags)
        self._changed(repository)
        return document

    def link(self, repository: str, tag: str, digest: Digest) -> Descriptor:
        """Show a manifest of the content store, and all it names, under a tag: a local push that copies nothing.

        Of an index, the manifests that are not here are left out, as the image store keeps only the platforms it
        pulled. Raises NotFound when the manifest is not in the store, FailedPrecondition when something that an
        image needs is not.
        """
        if not is_repository(repository):
            raise InvalidArgument(f"invalid repository {repository[:300]!r}", hint="use lower case, digits and . _ - /")
        if not is_tag(tag):
            raise InvalidArgument(f"invalid tag {tag[:140]!r}")
        with self._content.lease():
            plan = list(self._closure(digest))
            with self._database.transaction():
                for descriptor, document in reversed(plan):
                    self._record(repository, descriptor.digest, descriptor.media_type, descriptor.size, document)
                    if isinstance(document, Manifest):
                        for child in document.references():
                            if not media_types.is_foreign(child.media_type) or self._content.has(child.digest):
                                self.add_blob(repository, child.digest)
                self._tag(repository, digest, [tag])
        self._changed(repository)
        return plan[0][0]

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and every tag on it; returns whether it was there."""
        gone = self._database.execute(
            "DELETE FROM registry_manifest WHERE digest = ?"
            " AND repository = (SELECT id FROM registry_repository WHERE name = ?)",
            (digest, repository),
        )
        self._changed(repository)
        return bool(gone)

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Remove one tag and nothing else; returns whether it was there."""
        gone = self._database.execute(
            "DELETE FROM registry_tag WHERE name = ?"
            " AND repository = (SELECT id FROM registry_repository WHERE name = ?)",
            (tag, repository),
        )
        self._changed(repository)
        return bool(gone)

    # -- listings

    def exists(self, repository: str) -> bool:
        """Whether anything was ever pushed under this name."""
        return bool(self._database.query("SELECT 1 FROM registry_repository WHERE name = ?", (repository,)))

    def tags(self, repository: str, after: str = "", limit: int = -1) -> list[str]:
        """Return tags in ASCII order, those after `after`, at most `limit` (-1: all)."""
        rows = self._database.query(
            "SELECT t.name FROM registry_tag t JOIN registry_repository r ON r.id = t.repository"
            " WHERE r.name = ? AND t.name > ? ORDER BY t.name LIMIT ?",
            (repository, after, limit),
        )
        return [row["name"] for row in rows]

    def catalog(self, after: str = "", limit: int = -1) -> list[str]:
        """Return the names of repositories that hold a manifest, in ASCII order."""
        rows = self._database.query(
            "SELECT name FROM registry_repository r WHERE name > ?"
            " AND EXISTS (SELECT 1 FROM registry_manifest m WHERE m.repository = r.id) ORDER BY name LIMIT ?",
            (after, limit),
        )
        return [row["name"] for row in rows]

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Return descriptors of the manifests whose subject is this one, those of a fallback tag included.

        Distribution-spec, "Enabling the Referrers API": what clients wrote into the tag schema before must stay
        visible.
        """
        rows = self._database.query(
            "SELECT m.digest, m.media_type, m.size, m.artifact_type, m.annotations FROM registry_manifest m"
            " JOIN registry_repository r ON r.id = m.repository WHERE r.name = ? AND m.subject = ?",
            (repository, subject),
        )
        found = {
            Digest(row["digest"]): Descriptor(
                media_type=row["media_type"],
                digest=Digest(row["digest"]),
                size=row["size"],
                artifact_type=row["artifact_type"],
                annotations=json.loads(row["annotations"]),
            )
            for row in rows
        }
        fallback = self.manifest(repository, f"{subject.algorithm[:32]}-{subject.hex[:64]}")
        if fallback and media_types.is_index(fallback.descriptor.media_type):
            for entry in Index.decode(fallback.data, fallback.descriptor.media_type).manifests:
                found.setdefault(entry.digest, entry)
        return [found[digest] for digest in sorted(found)]

    # -- for the collector

    def roots(self) -> list[Digest]:
        """Return every digest the registry needs kept."""
        rows = self._database.query(
            "SELECT digest FROM registry_manifest UNION SELECT digest FROM registry_reference"
            " UNION SELECT digest FROM registry_blob WHERE moment > ?",
            (time.time() - self._unnamed,),
        )
        return [Digest(row["digest"]) for row in rows]

    def tidy(self) -> int:
        """Forget the blobs that nothing names any more and that are gone from the store; returns how many."""
        rows = self._database.query(
            "SELECT DISTINCT digest FROM registry_blob WHERE moment <= ?", (time.time() - self._unnamed,)
        )
        gone = [(row["digest"],) for row in rows if not self._content.path(Digest(row["digest"])).exists()]
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM registry_blob WHERE digest = ?", gone)
        return len(gone)

    # -- inside a transaction

    def _repository(self, name: str) -> int:
        with self._database.transaction() as connection:
            row = connection.execute("SELECT id FROM registry_repository WHERE name = ?", (name,)).fetchone()
            if row is None:
                row = connection.execute(
                    "INSERT INTO registry_repository (name) VALUES (?) RETURNING id", (name,)
                ).fetchone()
            return int(row["id"])

    def _record(
        self, repository: str, digest: Digest, media_type: str, size: int, document: "Manifest | Index"
    ) -> None:
        subject = document.subject.digest if document.subject else ""
        with self._database.transaction() as connection:
            number = self._repository(repository)
            connection.execute(
                "INSERT INTO registry_manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (repository, digest) DO UPDATE SET media_type = excluded.media_type",
                (
                    number,
                    digest,
                    media_type,
                    size,
                    subject,
                    _artifact_type(document),
                    json.dumps(document.annotations),
                    time.time(),
                ),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO registry_reference VALUES (?, ?, ?)",
                [(number, digest, child.digest) for child in document.references()],
            )

    def _tag(self, repository: str, digest: Digest, tags: Iterable[str]) -> None:
        with self._database.transaction() as connection:
            number = self._repository(repository)
            connection.executemany(
                "INSERT INTO registry_tag VALUES (?, ?, ?, ?) ON CONFLICT (repository, name)"
                " DO UPDATE SET digest = excluded.digest, moment = excluded.moment",
                [(number, tag, digest, time.time()) for tag in tags],
            )

    def _missing(self, repository: str, document: "Manifest | Index") -> list[Digest]:
        if isinstance(document, Manifest):
            wanted = [child.digest for child in document.references() if not media_types.is_foreign(child.media_type)]
            shown = self._shown("registry_blob", repository, wanted)
        else:
            wanted = [child.digest for child in document.manifests]
            shown = self._shown("registry_manifest", repository, wanted)
        return [digest for digest in dict.fromkeys(wanted) if digest not in shown or not self._content.has(digest)]

    def _shown(self, table: str, repository: str, digests: Sequence[Digest]) -> set[str]:
        """Return those of the digests that a table has for a repository; asked as one JSON array, however many."""
        rows = self._database.query(
            f"SELECT digest FROM {table} WHERE repository = (SELECT id FROM registry_repository WHERE name = ?)"
            " AND digest IN (SELECT value FROM json_each(?))",
            (repository, json.dumps(digests)),
        )
        return {row["digest"] for row in rows}

    def _closure(self, digest: Digest) -> Iterator[tuple[Descriptor, "Manifest | Index"]]:
        """Yield the manifest and, of an index, those of its children that are here; each once, parents first."""
        waiting, seen = [digest], {digest}
        while waiting:
            current = waiting.pop(0)
            data = self._content.read(current)
            document = decode(data)
            kind = document.media_type or (
                media_types.OCI_INDEX if isinstance(document, Index) else media_types.OCI_MANIFEST
            )
            yield Descriptor(media_type=kind, digest=current, size=len(data)), document
            if isinstance(document, Index):
                here = [child.digest for child in document.manifests if self._content.has(child.digest)]
                waiting += [child for child in here if child not in seen]
                seen.update(here)
                continue
            lacking = [
                child.digest
                for child in document.references()
                if not media_types.is_foreign(child.media_type) and not self._content.has(child.digest)
            ]
            if lacking:
                raise FailedPrecondition(
                    f"{len(lacking)} blobs of {current.short} are not in the store, first {lacking[0]}",
                    hint="pull the image again",
                )

    def _changed(self, repository: str) -> None:
        for listener in self._listeners:
            listener(repository)


def _artifact_type(document: "Manifest | Index") -> str:
    """Return what a referrer is: its own word, else the type of its configuration (distribution-spec)."""
    if document.artifact_type or isinstance(document, Index):
        return document.artifact_type
    return document.config.media_type
