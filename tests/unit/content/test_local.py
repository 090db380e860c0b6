from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import DataLoss, InvalidArgument, ResourceExhausted
from kestrel.content import Store
from kestrel.oci.digest import Digest
from kestrel.testing.content_suite import ContentSuite


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "kestrel.db")
    yield database
    database.close()


class TestStore(ContentSuite):
    @pytest.fixture
    def store(self, tmp_path: Path, database: Database) -> Store:
        return Store(tmp_path, database)


@pytest.fixture
def store(tmp_path: Path, database: Database) -> Store:
    return Store(tmp_path, database)


def test_blobs_are_read_only_files_named_by_their_digest(store: Store, tmp_path: Path) -> None:
    digest = store.put(b"x")
    path = tmp_path / "blobs" / "sha256" / digest.hex
    assert path == store.path(digest)
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_start_removes_what_a_crash_left_half_written(store: Store, tmp_path: Path, database: Database) -> None:
    (tmp_path / "ingest" / "leftover").write_bytes(b"half")
    Store(tmp_path, database)
    assert list((tmp_path / "ingest").iterdir()) == []


def test_a_start_leaves_what_somebody_is_writing(store: Store, tmp_path: Path, database: Database) -> None:
    with store.writer() as writer:
        writer.write(b"alive")
        Store(tmp_path, database)
        digest = writer.commit()
    assert store.has(digest)


def test_an_upload_survives_a_restart_and_is_hashed_again(store: Store, tmp_path: Path, database: Database) -> None:
    with store.upload("u") as upload:
        upload.write(b"before ")
    again = Store(tmp_path, database)
    assert again.uploads() == ["u"]
    with again.upload("u") as upload:
        upload.write(b"after")
        upload.commit(Digest.of(b"before after"))


def test_uploads_nobody_comes_back_for_expire(store: Store) -> None:
    with store.upload("old") as upload:
        upload.write(b"x")
    with store.upload("busy"):
        assert store.expire_uploads(3600) == []
        assert store.expire_uploads(-1) == ["old"]
    assert store.uploads() == ["busy"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b", "x" * 300])
def test_an_upload_id_cannot_be_a_path(store: Store, name: str) -> None:
    with pytest.raises(InvalidArgument):
        store.upload(name)


def test_a_damaged_document_is_noticed_when_it_is_read(store: Store) -> None:
    digest = store.put(b"document")
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"dOcument")
    with pytest.raises(DataLoss, match="damaged on disk"):
        store.read(digest)


def test_a_document_too_long_to_read_is_refused(store: Store) -> None:
    with pytest.raises(ResourceExhausted, match="10 bytes, more than the 9"):
        store.read(store.put(b"0123456789"), limit=9)
