"""Paths inside a root, resolved by the kernel: needs no root, only openat2(2)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.linux import mounts


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def place_of(fd: int) -> str:
    name = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    return name


def test_missing_directories_are_made(root: int, tmp_path: Path) -> None:
    assert place_of(mounts.make_directories(root, "/a/b/c")) == f"{tmp_path}/root/a/b/c"
    assert place_of(mounts.make_directories(root, "/a/b/c")) == f"{tmp_path}/root/a/b/c"


def test_an_absolute_link_stays_inside(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/real").mkdir()
    (tmp_path / "root/link").symlink_to("/real")
    assert place_of(mounts.make_directories(root, "/link/new")) == f"{tmp_path}/root/real/new"


@pytest.mark.parametrize("target", ["../../outside", "/../outside", "../../../../../../outside"])
def test_a_link_that_climbs_ends_at_the_root(root: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/outside").mkdir()
    (tmp_path / "root/link").symlink_to(target)
    assert place_of(mounts.make_directories(root, "/link/new")) == f"{tmp_path}/root/outside/new"
    assert list((tmp_path / "outside").iterdir()) == []


def test_dots_climb_no_higher_than_the_root(root: int, tmp_path: Path) -> None:
    assert place_of(mounts.make_directories(root, "/../../x")) == f"{tmp_path}/root/x"


@pytest.mark.parametrize("target", ["../gone", "/gone", "gone/../../gone", "./gone"])
def test_what_a_dangling_link_names_is_made_inside(root: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "root/link").symlink_to(target)
    assert place_of(mounts.make_directories(root, "/link/x")) == f"{tmp_path}/root/gone/x"
    (tmp_path / "root/file").symlink_to("/new/../../place/../file2")
    assert place_of(mounts.make_file(root, "/file")) == f"{tmp_path}/root/file2"
    assert not (tmp_path / "gone").exists()


def test_links_that_name_each_other_come_to_an_end(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")
    for make in (mounts.make_directories, mounts.make_file):
        with pytest.raises(OSError, match="symbolic links"):
            make(root, "/a/c")


def test_a_magic_link_is_not_followed(root: int, tmp_path: Path) -> None:
    with mounts.opened(os.open("/proc", os.O_PATH)) as proc, pytest.raises(OSError, match="symbolic links"):
        mounts.open_in_root(proc, "self/cwd")


def test_a_file_is_made_with_its_directories_and_then_found(root: int, tmp_path: Path) -> None:
    assert place_of(mounts.make_file(root, "/a/b/file")) == f"{tmp_path}/root/a/b/file"
    (tmp_path / "root/a/b/file").write_text("kept")
    os.close(mounts.make_file(root, "/a/b/file"))
    assert (tmp_path / "root/a/b/file").read_text() == "kept"


def test_a_file_in_the_way_of_a_directory_is_an_error(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/f").write_text("")
    with pytest.raises(OSError, match=r"Not a directory"):
        mounts.make_directories(root, "/f/x")


def test_what_another_makes_at_the_same_moment_is_taken(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers that share a directory make the places of their mounts in it, each by a look and then a step."""
    look = mounts.open_in_root

    def look_then_lose(fd: int, path: str, flags: int = mounts.PATH) -> int:
        try:
            return look(fd, path, flags)
        except FileNotFoundError:
            wanted = tmp_path / "root" / path.lstrip("/")
            if wanted.parent.is_dir():
                wanted.mkdir() if flags & os.O_DIRECTORY else wanted.touch()
            raise

    monkeypatch.setattr(mounts, "open_in_root", look_then_lose)
    assert place_of(mounts.make_directories(root, "/a/b")) == f"{tmp_path}/root/a/b"
    assert place_of(mounts.make_file(root, "/a/b/file")) == f"{tmp_path}/root/a/b/file"


def test_failures_leave_no_descriptor_open(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/f").write_text("")
    before = os.listdir("/proc/self/fd")
    for path in ("/f/x", "/a/f/../../f/y"):
        with pytest.raises(OSError, match="Not a directory"):
            mounts.make_directories(root, path)
    assert os.listdir("/proc/self/fd") == before
