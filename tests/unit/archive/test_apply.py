"""Unpacking: the form of layers, and what a hostile tar tries. Devices, owners and trusted xattrs need root."""

import io
import os
import stat
from pathlib import Path

import pytest

from kestrel.archive.apply import OPAQUE_XATTR, Form, apply
from kestrel.archive.entries import Entry, Kind
from kestrel.archive.trees import remove_tree
from kestrel.base.errors import DataLoss, InvalidArgument
from kestrel.testing.images import tar_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SECOND = 1_000_000_000


def unpack(root: Path, *members: "Entry | tuple[Entry, bytes]", form: Form = Form.OVERLAY) -> Path:
    root = root / "root"
    root.mkdir(exist_ok=True)
    apply(io.BytesIO(tar_of(*members)), root, form=form)
    return root


def directory(name: str, **more: object) -> Entry:
    return Entry(name=name, kind=Kind.DIRECTORY, mode=0o755, **more)  # type: ignore[arg-type]  # fields of Entry


def symlink(name: str, target: str) -> Entry:
    return Entry(name=name, kind=Kind.SYMLINK, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name=name, kind=Kind.HARDLINK, link=target)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def opaque(path: Path) -> bool:
    return OPAQUE_XATTR in os.listxattr(path)


def test_owner_mode_and_time_are_those_of_the_tar(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        Entry(name="", kind=Kind.DIRECTORY, mode=0o700, mtime=3 * SECOND),
        directory("d", uid=1, gid=2, mtime=5 * SECOND),
        (Entry(name="d/f", mode=0o4755, uid=3, gid=4, mtime=-7 * SECOND), b"x"),
        Entry(name="d/p", kind=Kind.FIFO, mode=0o622),
        Entry(name="d/n", kind=Kind.CHARACTER, mode=0o666, major=1, minor=3),
    )
    for path, mode, owner, mtime in (
        (root, 0o700, (0, 0), 3),
        (root / "d", 0o755, (1, 2), 5),
        (root / "d/f", 0o4755, (3, 4), -7),
        (root / "d/p", 0o622, (0, 0), 0),
        (root / "d/n", 0o666, (0, 0), 0),
    ):
        status = path.lstat()
        assert (stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)) == (mode, owner)
        assert status.st_mtime_ns == mtime * SECOND
    assert (root / "d/n").stat().st_rdev == os.makedev(1, 3)


def test_file_capabilities_survive_the_change_of_owner(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, revision 2
    root = unpack(tmp_path, (Entry(name="ping", mode=0o755, uid=5, xattrs={"security.capability": capability}), b"x"))
    assert os.getxattr(root / "ping", "security.capability") == capability


def test_xattrs_that_speak_to_overlayfs_or_the_host_are_dropped(tmp_path: Path) -> None:
    names = ("trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "security.selinux")
    root = unpack(tmp_path, directory("d", xattrs={**dict.fromkeys(names, b"y"), "trusted.mine": b"1"}))
    found = [name for name in os.listxattr(root / "d") if name != "security.selinux"]
    assert found == ["trusted.mine"]


def test_a_whiteout_becomes_a_device_and_an_opaque_marker_an_xattr(tmp_path: Path) -> None:
    root = unpack(tmp_path, Entry(name="etc/.wh.gone"), directory("d"), Entry(name="d/.wh..wh..opq"))
    assert is_whiteout(root / "etc/gone")
    assert opaque(root / "d")
    assert not opaque(root / "etc")


def test_a_whiteout_does_not_hide_what_its_own_layer_made(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        (Entry(name="file"), b"1"),
        Entry(name=".wh.file"),
        directory("d"),
        Entry(name="d/x"),
        Entry(name=".wh.d"),
    )
    assert (root / "file").read_bytes() == b"1"
    assert (root / "d/x").exists()
    assert opaque(root / "d")  # of lower layers nothing shows through


def test_a_directory_after_its_whiteout_is_opaque(tmp_path: Path) -> None:
    root = unpack(tmp_path, Entry(name=".wh.a"), directory("a"), Entry(name=".wh.b"), (Entry(name="b/c/d"), b"1"))
    assert opaque(root / "a")
    assert opaque(root / "b")
    assert (root / "b/c/d").read_bytes() == b"1"


def test_a_file_after_its_whiteout_is_the_file(tmp_path: Path) -> None:
    root = unpack(tmp_path, Entry(name=".wh.a"), (Entry(name="a"), b"new"))
    assert (root / "a").read_bytes() == b"new"


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh..."])
def test_a_whiteout_of_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="whiteout of nothing"):
        unpack(tmp_path, Entry(name=name))


def test_what_aufs_reserved_is_passed_over(tmp_path: Path) -> None:
    root = unpack(
        tmp_path, Entry(name=".wh..wh.aufs"), directory(".wh..wh.plnk"), Entry(name=".wh..wh.plnk/1.2"), Entry(name="a")
    )
    assert [path.name for path in root.iterdir()] == ["a"]


def test_nothing_lies_beneath_a_whiteout(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="beneath a whiteout"):
        unpack(tmp_path, Entry(name=".wh.d/file"))


def test_a_device_that_is_a_whiteout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="0:0"):
        unpack(tmp_path, Entry(name="etc", kind=Kind.CHARACTER))


def test_a_plain_archive_keeps_such_names(tmp_path: Path) -> None:
    root = unpack(tmp_path, (Entry(name=".wh.a"), b"1"), Entry(name=".wh..wh..opq"), form=Form.PLAIN)
    assert sorted(path.name for path in root.iterdir()) == [".wh..wh..opq", ".wh.a"]


def test_links_on_the_way_resolve_inside_the_root(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = unpack(
        tmp_path,
        directory("inside"),
        symlink("absolute", "/inside"),
        symlink("up", "../../../../inside"),
        (Entry(name="absolute/a"), b"1"),
        (Entry(name="up/b"), b"2"),
    )
    assert sorted(path.name for path in (root / "inside").iterdir()) == ["a", "b"]
    assert list(outside.iterdir()) == []


def test_a_file_never_goes_through_a_link_in_its_place(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    root = unpack(tmp_path, symlink("x", str(victim)), (Entry(name="x", mode=0o666), b"evil"))
    assert victim.read_bytes() == b"precious"
    assert not (root / "x").is_symlink()


@pytest.mark.parametrize("target", ["nothing", "dir", "whited", "link/x", "../victim"])
def test_a_hard_link_needs_a_file_of_this_archive(tmp_path: Path, target: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    with pytest.raises(InvalidArgument):
        unpack(
            tmp_path,
            directory("dir"),
            Entry(name=".wh.whited"),
            symlink("link", str(tmp_path)),
            hardlink("hard", target),
        )
    assert (tmp_path / "victim").stat().st_nlink == 1


def test_hard_links_share_their_inode_whatever_was_in_the_place(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        (Entry(name="a"), b"1"),
        (Entry(name="b"), b"2"),
        hardlink("b", "a"),
        hardlink("b", "a"),
        hardlink("a", "a"),
        symlink("s", "a"),
        hardlink("t", "s"),
    )
    assert (root / "a").stat().st_ino == (root / "b").stat().st_ino
    assert (root / "t").is_symlink()


def test_a_later_entry_replaces_an_earlier_one_of_any_kind(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        directory("d"),
        (Entry(name="d/deep/file"), b"1"),
        (Entry(name="d"), b"file now"),
        (Entry(name="f"), b"1"),
        directory("f"),
        (Entry(name="f/x"), b"2"),
        directory("e", mtime=SECOND),
        symlink("e", "f"),
        (Entry(name="e/through"), b"3"),
    )
    assert (root / "d").read_bytes() == b"file now"
    assert sorted(path.name for path in (root / "f").iterdir()) == ["through", "x"]


@pytest.mark.parametrize("parent", ["file", "loop", "dangling"])
def test_a_parent_that_is_no_directory_is_refused(tmp_path: Path, parent: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be unpacked"):
        unpack(
            tmp_path,
            Entry(name="file"),
            symlink("loop", "loop"),
            symlink("dangling", "no/where"),
            Entry(name=f"{parent}/x"),
        )


@pytest.mark.parametrize("name", ["n" * 300, "/".join(["d" * 200] * 25)])
def test_names_too_long_for_the_kernel_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be unpacked"):
        unpack(tmp_path, Entry(name=name))


def test_the_root_can_only_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="root of a layer"):
        unpack(tmp_path, symlink("", "/etc"))


def test_a_truncated_layer_is_data_loss(tmp_path: Path) -> None:
    with pytest.raises(DataLoss):
        apply(io.BytesIO(tar_of((Entry(name="a"), bytes(5000)))[:3000]), tmp_path)


def test_more_directories_than_are_kept_open_work(tmp_path: Path) -> None:
    names = [f"d{n % 400}/s/f{n}" for n in range(1200)]
    before = len(os.listdir("/proc/self/fd"))
    root = unpack(tmp_path, *[(Entry(name=name), name.encode()) for name in names])
    assert all((root / name).read_bytes() == name.encode() for name in names)
    assert len(os.listdir("/proc/self/fd")) == before


def test_another_owner_can_be_given(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    apply(io.BytesIO(tar_of((Entry(name="d/f", uid=1), b"x"))), root, owner=(7, 8))
    assert ((root / "d/f").stat().st_uid, (root / "d/f").stat().st_gid) == (7, 8)


def test_a_tree_deeper_than_any_stack_can_be_removed(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.mkdir("top", dir_fd=fd)
    deep = os.open("top", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    for _ in range(2500):
        os.mkdir("d", dir_fd=deep)
        following = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=deep)
        os.close(deep)
        deep = following
    os.close(deep)
    os.close(fd)
    remove_tree(tmp_path / "top")
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []
