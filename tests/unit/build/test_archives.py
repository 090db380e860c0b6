"""Archives that ADD unpacks."""

import gzip
import os
from pathlib import Path

import pytest

from kestrel.base.errors import DataLoss
from kestrel.build.archives import plain


def test_an_archive_that_ends_too_early_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(os.urandom(100000))[:50000])
    with open(tmp_path / "a.tgz", "rb") as file, pytest.raises(DataLoss, match="gzip data of the archive ends"):
        reader = plain(file)
        while reader.read():
            pass
