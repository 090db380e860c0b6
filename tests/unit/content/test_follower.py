"""Reading a blob while it arrives."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import DataLoss
from kestrel.content import Follower, Store
from kestrel.oci.digest import Digest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    database = Database(tmp_path / "db")
    yield Store(tmp_path, database)
    database.close()


def gather(follower: Follower, into: list[bytes]) -> None:
    with follower:
        while piece := follower.read(1000):
            into.append(piece)


def test_what_is_written_is_read_while_it_comes_and_after_the_rename(store: Store) -> None:
    data = bytes(range(256)) * 50
    with store.upload("u") as upload:
        upload.write(data[:5000])  # an earlier attempt's
    with store.upload("u") as upload:
        pieces: list[bytes] = []
        thread = threading.Thread(target=gather, args=(upload.follow(), pieces))
        thread.start()
        for start in range(5000, len(data), 700):
            upload.write(data[start : start + 700])
        upload.commit(Digest.of(data))
        thread.join(10)
    assert b"".join(pieces) == data


@pytest.mark.parametrize("how", ["close", "abort", "wrong"])
def test_a_transfer_that_ends_early_ends_its_reader_with_an_error(store: Store, how: str) -> None:
    upload = store.upload("u")
    follower = upload.follow()
    upload.write(b"some")
    assert follower.read(100) == b"some"
    failures: list[BaseException] = []

    def read() -> None:
        try:
            follower.read(100)
        except DataLoss as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    if how == "wrong":
        with pytest.raises(DataLoss):
            upload.commit(Digest.of(b"other"))
        upload.abort()
    else:
        getattr(upload, how)()
    thread.join(10)
    follower.close()
    assert len(failures) == 1
