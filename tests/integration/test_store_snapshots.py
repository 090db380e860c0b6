"""The snapshotters' contract, on this kernel's overlayfs and EROFS."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.snapshots import Erofs, Overlay, missing
from kestrel.testing.snapshot_suite import SnapshotterSuite

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def made() -> Iterator[list[Callable[[], None]]]:
    """Collect what has to be closed in the end."""
    closing: list[Callable[[], None]] = []
    yield closing
    for close in reversed(closing):
        close()


class TestOverlay(SnapshotterSuite):
    @pytest.fixture(autouse=True)
    def _maker(self, made: list[Callable[[], None]]) -> None:
        def make(root: Path) -> Overlay:
            database = Database(root / "kestrel.db")
            made.append(database.close)
            return Overlay(root, database)

        type(self).make = staticmethod(make)


class TestErofs(SnapshotterSuite):
    @pytest.fixture(autouse=True)
    def _maker(self, made: list[Callable[[], None]], tmp_path: Path) -> None:
        if reason := missing(tmp_path):
            pytest.skip(reason)

        def make(root: Path) -> Erofs:
            database = Database(root / "kestrel.db")
            snapshots = Erofs(root, database)
            made.extend([database.close, snapshots.close])
            return snapshots

        type(self).make = staticmethod(make)
