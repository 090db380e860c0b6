# ruff: noqa: D102 - the name of a test is its sentence
"""What every content store must do. Subclass, and give `make`:

class TestStore(ContentSuite):
    make = staticmethod(lambda root: Store(root, Database(root / "kestrel.db")))
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from kestrel.base.errors import Conflict, DataLoss, NotFound
from kestrel.content import Store, sweep
from kestrel.oci.digest import EMPTY, Digest

_ABSENT = Digest.of(b"nobody stored this")


class ContentSuite:
    """The contract, one test a sentence of it."""

    make: ClassVar[Callable[[Path], Store]]

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """Return an empty store."""
        return type(self).make(tmp_path)

    def test_a_committed_blob_can_be_read_back(self, store: Store) -> None:
        digest = store.put(b"hello")
        assert digest == Digest.of(b"hello")
        assert store.has(digest)
        assert store.read(digest) == b"hello"
        assert store.size(digest) == 5

    def test_the_empty_blob_is_a_blob(self, store: Store) -> None:
        assert store.put(b"") == EMPTY
        assert store.read(EMPTY) == b""

    def test_sha512_is_kept_beside_sha256(self, store: Store) -> None:
        wanted = Digest.of(b"x", "sha512")
        assert store.put(b"x", wanted) == wanted
        assert store.read(wanted) == b"x"
        assert not store.has(Digest.of(b"x"))

    def test_what_is_not_committed_is_not_there(self, store: Store) -> None:
        with store.writer() as writer:
            writer.write(b"half")
        assert list(store.walk()) == []
        assert store.usage() == 0

    def test_a_wrong_digest_is_refused_and_nothing_stays(self, store: Store) -> None:
        with pytest.raises(DataLoss, match="expected sha256"), store.writer(_ABSENT) as writer:
            writer.write(b"something else")
            writer.commit()
        assert list(store.walk()) == []

    def test_more_bytes_than_announced_are_refused_at_once(self, store: Store) -> None:
        with pytest.raises(DataLoss, match="more than the announced 3"), store.writer(size=3) as writer:
            writer.write(b"four")

    def test_fewer_bytes_than_announced_are_refused(self, store: Store) -> None:
        with pytest.raises(DataLoss, match="2 bytes of the announced 3"), store.writer(size=3) as writer:
            writer.write(b"ab")
            writer.commit()

    def test_absent_blobs_are_not_found(self, store: Store) -> None:
        assert not store.has(_ABSENT)
        for question in (store.size, store.read, store.open, store.touch):
            with pytest.raises(NotFound):
                question(_ABSENT)
        assert store.delete(_ABSENT) is False

    def test_the_same_blob_twice_is_one_blob(self, store: Store) -> None:
        store.put(b"twice")
        with store.writer() as writer:
            writer.write(b"twice")
            writer.commit()
        assert [blob.size for blob in store.walk()] == [5]

    def test_an_upload_goes_on_where_it_stopped(self, store: Store) -> None:
        with store.upload("u1") as upload:
            upload.write(b"first ")
        with store.upload("u1") as upload:
            assert upload.offset == 6
            upload.write(b"second")
            digest = upload.commit(Digest.of(b"first second"))
        assert store.read(digest) == b"first second"
        assert not store.has_upload("u1")

    def test_an_upload_can_be_written_by_one_only(self, store: Store) -> None:
        with store.upload("u1"), pytest.raises(Conflict):
            store.upload("u1")

    def test_an_upload_with_the_wrong_digest_stays_for_another_try(self, store: Store) -> None:
        with store.upload("u1") as upload:
            upload.write(b"content")
            with pytest.raises(DataLoss):
                upload.commit(_ABSENT)
        assert store.has_upload("u1")
        with store.upload("u1", create=False) as upload:
            upload.abort()
        assert not store.has_upload("u1")
        with pytest.raises(NotFound):
            store.upload("u1", create=False)

    def test_an_upload_may_end_in_another_algorithm_than_it_began(self, store: Store) -> None:
        with store.upload("u1") as upload:
            upload.write(b"x")
            assert upload.commit(Digest.of(b"x", "sha512")).algorithm == "sha512"

    def test_a_collection_takes_what_nothing_names(self, store: Store) -> None:
        kept, lost = store.put(b"kept"), store.put(b"lost")
        swept = sweep(store, {"images": lambda: [kept]})
        assert [verdict.digest for verdict in swept.removed] == [lost]
        assert swept.freed == 4
        assert [verdict.reason for verdict in swept.kept] == ["named by images"]
        assert store.has(kept)

    def test_a_collected_blob_says_so_when_it_is_missed(self, store: Store) -> None:
        lost = store.put(b"lost")
        sweep(store, {})
        with pytest.raises(NotFound) as caught:
            store.read(lost)
        assert "nothing names it" in str(caught.value.hint)

    def test_a_dry_run_removes_nothing(self, store: Store) -> None:
        lost = store.put(b"lost")
        assert len(sweep(store, {}, dry_run=True).removed) == 1
        assert store.has(lost)

    def test_a_lease_keeps_what_is_made_or_seen_under_it(self, store: Store) -> None:
        seen = store.put(b"seen")
        with store.lease():
            assert store.has(seen)
            made = store.put(b"made")
            assert sweep(store, {}).removed == ()
        assert store.has(seen)
        assert store.has(made)
        assert len(sweep(store, {}).removed) == 2

    def test_what_finds_a_root_while_the_sweep_runs_stays(self, store: Store) -> None:
        """The image is recorded, and the lease closed, after the root was read and before the sweep deletes."""
        lease = store.lease()
        made = store.put(b"made")

        def root() -> list[Digest]:
            lease.close()
            return []

        assert sweep(store, [root]).removed == ()
        assert store.has(made)

    def test_young_blobs_have_a_grace(self, store: Store) -> None:
        store.put(b"young")
        assert sweep(store, {}, grace=3600).removed == ()

    def test_a_failing_root_removes_nothing(self, store: Store) -> None:
        digest = store.put(b"x")

        def broken() -> list[Digest]:
            raise RuntimeError("the table is locked")

        with pytest.raises(RuntimeError):
            sweep(store, [broken])
        assert store.has(digest)
