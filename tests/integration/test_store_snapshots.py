"""The snapshotter's contract, on this kernel's overlayfs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.snapshots import Overlay
from kestrel.testing.snapshot_suite import SnapshotterSuite

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class TestOverlay(SnapshotterSuite):
    @pytest.fixture(autouse=True)
    def _databases(self) -> Iterator[None]:
        opened: list[Database] = []

        def make(root: Path) -> Overlay:
            opened.append(Database(root / "kestrel.db"))
            return Overlay(root, opened[-1])

        type(self).make = staticmethod(make)
        yield
        for database in opened:
            database.close()
