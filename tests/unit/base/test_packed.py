"""Programs of a package of two modules, started as `kestrel-runtime` is, with a pack."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parents[3] / "src")
PROGRAM = """
import sys
sys.path += sys.argv[1:3]
from kestrel.base.packed import Pack
pack = Pack(sys.argv[3])
from wings.feather import SAID
import wings, wings.feather
pack.keep()
print(SAID, type(wings.feather.__loader__).__name__, wings.feather.__file__, wings.__path__[0])
"""


@pytest.fixture
def wings(tmp_path: Path) -> Path:
    (tmp_path / "wings").mkdir()
    (tmp_path / "wings/__init__.py").touch()
    (tmp_path / "wings/feather.py").write_text("SAID = 'one'\n")
    return tmp_path / "wings"


def loaded(wings: Path) -> tuple[str, str]:
    """Run the program; return what the module said, and who loaded it."""
    words = [sys.executable, "-IS", "-c", PROGRAM, SOURCE, str(wings.parent), str(wings.parent / "pack")]
    said, loader, source, package = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert (source, package) == (str(wings / "feather.py"), str(wings))
    return said, loader


def test_the_second_start_finds_everything_in_the_pack(wings: Path) -> None:
    assert loaded(wings) == ("one", "SourceFileLoader")
    before = (wings.parent / "pack").stat()
    assert loaded(wings) == ("one", "Pack")
    assert (wings.parent / "pack").stat().st_ino == before.st_ino


def test_a_changed_source_is_what_counts(wings: Path) -> None:
    loaded(wings)
    (wings / "feather.py").write_text("SAID = 'another'\n")
    assert loaded(wings) == ("another", "SourceFileLoader")
    assert loaded(wings) == ("another", "Pack")


def test_what_a_slow_start_has_loaded_is_not_for_the_others(wings: Path) -> None:
    (wings / "feather.py").write_text("import typing\nSAID = 'one'\n")
    assert loaded(wings) == ("one", "SourceFileLoader")
    assert loaded(wings) == ("one", "SourceFileLoader")


def test_a_removed_source_is_gone_though_its_code_is_there(wings: Path) -> None:
    loaded(wings)
    (wings / "feather.py").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        loaded(wings)


MAGIC = importlib.util.MAGIC_NUMBER


@pytest.mark.parametrize("content", [b"", b"\0\0", b"not of this interpreter", MAGIC, MAGIC + b"{\xe1", MAGIC + b"?"])
def test_what_is_no_pack_is_replaced(wings: Path, content: bytes) -> None:
    (wings.parent / "pack").write_bytes(content)
    assert loaded(wings) == ("one", "SourceFileLoader")
    assert (wings.parent / "pack").read_bytes().startswith(MAGIC)
    assert loaded(wings) == ("one", "Pack")


def test_where_none_can_be_written_there_is_none(wings: Path) -> None:
    (wings.parent / "pack").mkdir()
    assert loaded(wings) == ("one", "SourceFileLoader")
    assert sorted(os.listdir(wings.parent)) == ["pack", "wings"]
