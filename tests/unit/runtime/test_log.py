from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kestrel.runtime.log import SPLIT, LogWriter
from kestrel.runtime.messages import LogFile


def contents(path: Path) -> list[tuple[str, str, bytes]]:
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    fields = [line.split(b" ", 3) for line in lines]
    return [(stream.decode(), tag.decode(), content) for _, stream, tag, content in fields]


def rejoined(path: Path, stream: str) -> bytes:
    return b"".join(c + (b"\n" if tag == "F" else b"") for s, tag, c in contents(path) if s == stream)


def test_lines_of_both_streams_are_kept_apart(tmp_path: Path) -> None:
    writer = LogWriter(LogFile(path=str(tmp_path / "log")))
    writer.write("stdout", b"be")
    writer.write("stderr", b"bad\n")
    writer.write("stdout", b"gin\nend")
    writer.finish()
    assert contents(tmp_path / "log") == [
        ("stderr", "F", b"bad"),
        ("stdout", "F", b"begin"),
        ("stdout", "P", b"end"),
    ]


@pytest.mark.parametrize("length", [SPLIT - 1, SPLIT, SPLIT + 1, 3 * SPLIT])
def test_long_lines_are_split(tmp_path: Path, length: int) -> None:
    writer = LogWriter(LogFile(path=str(tmp_path / "log")))
    writer.write("stdout", b"x" * length + b"\n")
    writer.finish()
    found = contents(tmp_path / "log")
    assert all(len(content) <= SPLIT for _, _, content in found)
    assert [tag for _, tag, _ in found][:-1] == ["P"] * (len(found) - 1)
    assert found[-1][1] == "F"
    assert rejoined(tmp_path / "log", "stdout") == b"x" * length + b"\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40)), max_size=20))
def test_what_is_read_back_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, chunks: list) -> None:  # type: ignore[type-arg] # hypothesis' own tuples
    path = tmp_path_factory.mktemp("log") / "log"
    writer = LogWriter(LogFile(path=str(path)))
    for stream, data in chunks:
        writer.write(stream, data)
    writer.finish()
    for stream in ("stdout", "stderr"):
        assert rejoined(path, stream) == b"".join(data for name, data in chunks if name == stream)


def test_rotation_keeps_so_many_files_and_loses_no_recent_line(tmp_path: Path) -> None:
    writer = LogWriter(LogFile(path=str(tmp_path / "log"), max_size=2000, max_files=3))
    for number in range(200):
        writer.write("stdout", b"line %d\n" % number)
    writer.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    text = b"".join(rejoined(tmp_path / name, "stdout") for name in ("log.2", "log.1", "log"))
    numbers = [int(line.split()[1]) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 200))


def test_many_lines_at_once_are_spread_over_the_files(tmp_path: Path) -> None:
    writer = LogWriter(LogFile(path=str(tmp_path / "log"), max_size=2000, max_files=4))
    writer.write("stdout", b"".join(b"line %d\n" % number for number in range(300)))
    writer.finish()
    assert len(list(tmp_path.iterdir())) == 4
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    assert rejoined(tmp_path / "log", "stdout").endswith(b"line 299\n")


def test_one_file_is_cut_off_when_it_is_full(tmp_path: Path) -> None:
    writer = LogWriter(LogFile(path=str(tmp_path / "log"), max_size=500, max_files=1))
    for number in range(100):
        writer.write("stdout", b"line %d\n" % number)
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").stat().st_size <= 500


def test_what_could_not_be_written_is_counted(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    writer = LogWriter(LogFile(path="/dev/full"))
    writer.write("stdout", b"lost\n")
    (tmp_path / "log").touch()
    writer._where = LogFile(path=str(tmp_path / "log"))
    writer.reopen()
    writer.write("stdout", b"kept\n")
    writer.finish()
    lines = contents(tmp_path / "log")
    assert b"bytes of output were lost" in lines[0][2]
    assert lines[1] == ("stdout", "F", b"kept")


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        LogWriter(LogFile(path=str(tmp_path / "log")))
    assert not (tmp_path / "victim").exists()
