"""The SQLite backend of the registry's metadata keeps the contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.registry import SqliteMetadata
from kestrel.testing.metadata_suite import MetadataSuite


class TestSqliteMetadata(MetadataSuite):
    @pytest.fixture
    def metadata(self, tmp_path: Path) -> Iterator[SqliteMetadata]:
        database = Database(tmp_path / "kestrel.db")
        yield SqliteMetadata(database)
        database.close()
