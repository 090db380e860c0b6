"""The tables of the registry's metadata, step by step as they came to be; a step never changes once it was released."""

from typing import Final

MIGRATIONS: Final = {
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
    "registry-2-history": """
        CREATE INDEX registry_manifest_digest ON registry_manifest (digest);
        CREATE INDEX registry_reference_digest ON registry_reference (digest);
        CREATE TABLE registry_history (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            repository INTEGER NOT NULL REFERENCES registry_repository(id),
            tag TEXT NOT NULL,
            digest TEXT NOT NULL,
            moment REAL NOT NULL,
            actor TEXT NOT NULL
        );
        CREATE INDEX registry_history_tag ON registry_history (repository, tag, number);
        INSERT INTO registry_history (repository, tag, digest, moment, actor)
            SELECT repository, name, digest, moment, '' FROM registry_tag ORDER BY moment;
        CREATE TABLE registry_gone (
            repository INTEGER NOT NULL REFERENCES registry_repository(id),
            digest TEXT NOT NULL,
            media_type TEXT NOT NULL,
            tags TEXT NOT NULL,
            moment REAL NOT NULL,
            PRIMARY KEY (repository, digest)
        ) WITHOUT ROWID;
        CREATE TABLE registry_gone_reference (
            digest TEXT NOT NULL,
            repository INTEGER NOT NULL,
            manifest TEXT NOT NULL,
            PRIMARY KEY (digest, repository, manifest),
            FOREIGN KEY (repository, manifest) REFERENCES registry_gone(repository, digest) ON DELETE CASCADE
        ) WITHOUT ROWID;
        CREATE INDEX registry_gone_reference_manifest ON registry_gone_reference (repository, manifest);
        CREATE TABLE registry_tag_rule (
            repositories TEXT NOT NULL,
            tags TEXT NOT NULL,
            PRIMARY KEY (repositories, tags)
        ) WITHOUT ROWID
    """,
    "registry-3-upstream": """
        CREATE TABLE registry_upstream (
            prefix TEXT PRIMARY KEY,
            domain TEXT NOT NULL,
            by_default INTEGER NOT NULL
        ) WITHOUT ROWID
    """,
}
