import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition
from kestrel.oci.digest import Digest
from kestrel.snapshots import Overlay
from kestrel.testing.images import layer
from kestrel.testing.snapshot_suite import BASE, add

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "kestrel.db")
    yield database
    database.close()


def test_what_a_crash_left_is_removed_at_the_next_start(tmp_path: Path, database: Database) -> None:
    Overlay(tmp_path, database)
    orphan = tmp_path / "layers" / "sha256" / ("a" * 64) / "fs"
    orphan.mkdir(parents=True)
    (tmp_path / "layers" / "new" / "half").mkdir()
    (tmp_path / "trash" / "gone").mkdir()
    (tmp_path / "snapshots" / "nobody" / "upper").mkdir(parents=True)
    again = Overlay(tmp_path, database)
    assert again.layers() == []
    for place in ("layers/sha256", "layers/new", "trash", "snapshots"):
        assert list((tmp_path / place).iterdir()) == []


def test_a_layer_whose_directory_is_gone_is_forgotten(tmp_path: Path, database: Database) -> None:
    overlay = Overlay(tmp_path, database)
    base = add(overlay, BASE)
    (tmp_path / "layers" / "sha256" / base.hex).rename(tmp_path / "elsewhere")
    assert Overlay(tmp_path, database).layers() == []


def test_after_a_power_cut_only_settled_layers_are_trusted(tmp_path: Path, database: Database) -> None:
    overlay = Overlay(tmp_path, database)
    settled = add(overlay, BASE)
    assert overlay.settle() == 1
    fresh = add(overlay, layer({"later": b""}))
    database.execute("UPDATE layer SET boot = 'another boot' WHERE diff_id = ?", (fresh,))
    again = Overlay(tmp_path, database)
    assert again.layers() == [settled]
    again.add_layer(fresh, io.BytesIO(layer({"later": b""})))
    assert again.has_layer(fresh)


def test_more_layers_than_overlayfs_takes_are_refused_with_a_remedy(tmp_path: Path, database: Database) -> None:
    overlay = Overlay(tmp_path, database)
    base = add(overlay, BASE)
    with pytest.raises(FailedPrecondition, match="501 layers"):
        overlay.view([base] * 501)


def test_two_threads_adding_one_layer_end_with_one(tmp_path: Path, database: Database) -> None:
    from concurrent.futures import ThreadPoolExecutor

    overlay = Overlay(tmp_path, database)
    tar = layer({f"d{n}/f{n}": b"x" * n for n in range(200)})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: overlay.add_layer(Digest.of(tar), io.BytesIO(tar)), range(4)))
    assert overlay.layers() == [Digest.of(tar)]
    assert list((tmp_path / "layers" / "new").iterdir()) == []
