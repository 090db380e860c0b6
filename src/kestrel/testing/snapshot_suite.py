# ruff: noqa: D102 - the name of a test is its sentence
"""What every snapshotter must do. Subclass, and give `make`:

class TestOverlay(SnapshotterSuite):
    make = staticmethod(lambda root: Overlay(root, Database(root / "kestrel.db")))

Needs root: the trees are compared as overlayfs shows them, through `linux.mounts.open_rootfs`.
"""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from kestrel.archive.entries import Entry, Kind
from kestrel.base.errors import AlreadyExists, Conflict, DataLoss, InvalidArgument, NotFound
from kestrel.linux.mounts import open_rootfs, opened
from kestrel.linux.rootfs import Rootfs
from kestrel.oci.digest import Digest
from kestrel.snapshots import Snapshotter
from kestrel.testing.images import EPOCH, Symlink, layer

BASE = layer(
    {
        "etc/hosts": b"localhost",
        "etc/motd": b"welcome",
        "data/one": b"1",
        "data/two": b"2",
        "link": Symlink("etc/motd"),
    }
)
CHANGES = layer({"etc/.wh.motd": b"", "data/.wh..wh..opq": b"", "data/three": b"3", "new": b"new"})


class SnapshotterSuite:
    """The contract, one test a sentence of it."""

    make: ClassVar[Callable[[Path], Snapshotter]]

    @pytest.fixture
    def snapshots(self, tmp_path: Path) -> Snapshotter:
        """Return an empty snapshotter."""
        return type(self).make(tmp_path)

    def test_layers_stack_with_whiteouts_and_opaque_directories(self, snapshots: Snapshotter) -> None:
        plan = snapshots.view([add(snapshots, BASE), add(snapshots, CHANGES)])
        assert tree(plan) == {
            "data": None,
            "data/three": b"3",
            "etc": None,
            "etc/hosts": b"localhost",
            "link": "etc/motd",
            "new": b"new",
        }

    def test_a_layer_is_named_by_its_diff_id_whatever_its_compression(self, snapshots: Snapshotter) -> None:
        from kestrel.testing.images import compressed

        for compression in ("gzip", "zstd", ""):
            diff_id = Digest.of(BASE)
            snapshots.add_layer(diff_id, io.BytesIO(compressed(BASE, compression)))
            assert snapshots.has_layer(diff_id)
            assert snapshots.layers() == [diff_id]
            snapshots.remove_layer(diff_id)
            assert not snapshots.has_layer(diff_id)

    def test_adding_a_layer_twice_is_fine(self, snapshots: Snapshotter) -> None:
        add(snapshots, BASE)
        add(snapshots, BASE)
        assert len(snapshots.layers()) == 1

    def test_a_layer_may_stand_in_a_stack_twice(self, snapshots: Snapshotter) -> None:
        base, changes = add(snapshots, BASE), add(snapshots, CHANGES)
        assert tree(snapshots.view([base, changes, base])) == {**tree(snapshots.view([changes, base]))}
        assert tree(snapshots.view([base, base])) == tree(snapshots.view([base]))

    def test_a_layer_of_another_digest_is_refused_whole(self, snapshots: Snapshotter) -> None:
        wanted = Digest.of(CHANGES)
        with pytest.raises(DataLoss):
            snapshots.add_layer(wanted, io.BytesIO(BASE))
        assert not snapshots.has_layer(wanted)
        assert snapshots.layers() == []

    def test_a_layer_that_ends_too_early_is_refused(self, snapshots: Snapshotter) -> None:
        with pytest.raises(DataLoss):
            snapshots.add_layer(Digest.of(BASE), io.BytesIO(BASE[:700]))
        assert snapshots.layers() == []

    def test_a_missing_layer_is_not_found(self, snapshots: Snapshotter) -> None:
        absent = Digest.of(b"absent")
        for question in (snapshots.layer_size, snapshots.layer_usage):
            with pytest.raises(NotFound):
                question(absent)
        with pytest.raises(NotFound):
            snapshots.view([absent])
        with pytest.raises(NotFound):
            snapshots.prepare("k", [absent])
        assert snapshots.keys() == []
        snapshots.remove_layer(absent)

    def test_writes_go_to_the_snapshot_and_not_to_the_layer(self, snapshots: Snapshotter) -> None:
        base = add(snapshots, BASE)
        write(snapshots.prepare("a", [base]), "etc/motd", b"changed")
        assert tree(snapshots.rootfs("a"))["etc/motd"] == b"changed"
        assert tree(snapshots.prepare("b", [base]))["etc/motd"] == b"welcome"

    def test_an_image_without_layers_is_an_empty_root(self, snapshots: Snapshotter) -> None:
        plan = snapshots.prepare("scratch", [])
        assert tree(plan) == {}
        write(plan, "only", b"file")
        assert tree(plan) == {"only": b"file"}

    def test_a_key_is_taken_until_it_is_removed(self, snapshots: Snapshotter) -> None:
        snapshots.prepare("a", [])
        with pytest.raises(AlreadyExists):
            snapshots.prepare("a", [])
        snapshots.remove("a")
        snapshots.remove("a")
        with pytest.raises(NotFound):
            snapshots.rootfs("a")
        snapshots.prepare("a", [])
        assert snapshots.keys() == ["a"]

    @pytest.mark.parametrize("key", ["", "..", "a/b", "/abs", "x" * 300, "new\n"])
    def test_a_key_cannot_be_a_path(self, snapshots: Snapshotter, key: str) -> None:
        with pytest.raises(InvalidArgument):
            snapshots.prepare(key, [])

    def test_a_layer_under_a_snapshot_cannot_be_removed(self, snapshots: Snapshotter) -> None:
        base = add(snapshots, BASE)
        snapshots.prepare("a", [base])
        with pytest.raises(Conflict):
            snapshots.remove_layer(base)
        snapshots.remove("a")
        snapshots.remove_layer(base)

    @pytest.mark.parametrize("consume", [False, True])
    def test_a_committed_snapshot_is_a_layer_with_the_same_tree(self, snapshots: Snapshotter, consume: bool) -> None:
        base = add(snapshots, BASE)
        plan = snapshots.prepare("a", [base])
        with opened(open_rootfs(plan)) as root:
            os.unlink("data/one", dir_fd=root)
            os.mkdir("made", dir_fd=root)
        write(plan, "made/file", b"content")
        expected = tree(plan)
        buffer = io.BytesIO()
        committed = snapshots.commit("a", buffer, consume=consume)
        assert committed.diff_id == Digest.of(buffer.getvalue())
        assert committed.size == len(buffer.getvalue())
        assert snapshots.has_layer(committed.diff_id) is consume
        assert snapshots.keys() == ([] if consume else ["a"])
        if not consume:
            snapshots.add_layer(committed.diff_id, io.BytesIO(buffer.getvalue()))
        assert tree(snapshots.view([base, committed.diff_id])) == expected

    @pytest.mark.parametrize("consume", [False, True])
    def test_what_a_range_of_users_wrote_is_committed_as_the_containers_own(
        self, snapshots: Snapshotter, consume: bool
    ) -> None:
        made = []
        for key, first in (("range", 700_000_000), ("host", 0)):
            _fill(snapshots.prepare(key, []).upper, first)
            buffer = io.BytesIO()
            users = range(first, first + 65_536) if first else range(0)
            committed = snapshots.commit(key, buffer, clamp=EPOCH, consume=consume, users=users)
            made.append(buffer.getvalue())
            snapshots.add_layer(committed.diff_id, io.BytesIO(buffer.getvalue()))
        assert made[0] == made[1]
        with opened(open_rootfs(snapshots.view([committed.diff_id]))) as root:
            program = os.stat("program", dir_fd=root)
            assert (program.st_uid, program.st_gid, program.st_mode & 0o7777) == (0, 0, 0o4755)
            assert os.stat("owned/link", dir_fd=root, follow_symlinks=False).st_uid == 5
            top = f"/proc/self/fd/{root}"
            assert os.getxattr(f"{top}/program", "security.capability") == _capability(0)
            assert os.getxattr(f"{top}/owned", "system.posix_acl_default") == _acl(1000)

    def test_a_commit_is_a_function_of_the_tree(self, snapshots: Snapshotter) -> None:
        digests = set()
        for key, names in (("a", ("x", "y", "z")), ("b", ("z", "x", "y"))):
            plan = snapshots.prepare(key, [])
            for name in names:
                write(plan, name, name.encode())
            digests.add(snapshots.commit(key, io.BytesIO(), clamp=EPOCH, consume=key == "b").diff_id)
        assert len(digests) == 1

    def test_usage_counts_what_was_written(self, snapshots: Snapshotter) -> None:
        plan = snapshots.prepare("a", [])
        before = snapshots.usage("a")
        write(plan, "big", bytes(100_000))
        after = snapshots.usage("a")
        assert after.inodes > before.inodes
        assert after.size >= before.size + 100_000

    def test_layer_sizes_are_known(self, snapshots: Snapshotter) -> None:
        base = add(snapshots, BASE)
        assert snapshots.layer_size(base) == len(b"localhostwelcome12")
        assert snapshots.layer_usage(base).inodes >= 1

    def test_everything_survives_a_restart(self, snapshots: Snapshotter, tmp_path: Path) -> None:
        base = add(snapshots, BASE)
        write(snapshots.prepare("a", [base]), "mine", b"kept")
        again = type(self).make(tmp_path)
        assert again.layers() == [base]
        assert tree(again.rootfs("a"))["mine"] == b"kept"

    def test_the_root_directory_has_the_mode_of_the_top_layer(self, snapshots: Snapshotter) -> None:
        from kestrel.archive.writer import TarWriter

        buffer = io.BytesIO()
        tar = TarWriter(buffer)
        tar.add(Entry(name="", kind=Kind.DIRECTORY, mode=0o711, uid=7, gid=8, mtime=EPOCH))
        tar.close()
        plan = snapshots.prepare("a", [add(snapshots, buffer.getvalue())])
        with opened(open_rootfs(plan)) as root:
            status = os.stat(".", dir_fd=root)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o711, 7, 8)


def add(snapshots: Snapshotter, tar: bytes) -> Digest:
    """Add a layer; returns its diff_id."""
    diff_id = Digest.of(tar)
    snapshots.add_layer(diff_id, io.BytesIO(tar))
    return diff_id


def write(plan: Rootfs, path: str, data: bytes) -> None:
    """Write a file in a root filesystem."""
    with opened(open_rootfs(plan)) as root:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644, dir_fd=root)
        with open(fd, "wb") as file:
            file.write(data)


def _fill(upper: str, first: int) -> None:
    """Write what a container writes whose user 0 is `first` on the host."""
    os.mkdir(f"{upper}/owned")
    for name, user in (("owned/file", 1000), ("program", 0)):
        with open(f"{upper}/{name}", "wb") as file:
            file.write(b"content")
        os.chown(f"{upper}/{name}", first + user, first + user)
    os.chmod(f"{upper}/program", 0o4755)
    os.symlink("file", f"{upper}/owned/link")
    os.chown(f"{upper}/owned/link", first + 5, first + 6, follow_symlinks=False)
    os.chown(f"{upper}/owned", first, first)
    os.setxattr(f"{upper}/program", "security.capability", _capability(first))
    os.setxattr(f"{upper}/owned", "system.posix_acl_default", _acl(first + 1000))


def _capability(first: int) -> bytes:
    """cap_net_raw, as the root of a user namespace gives it, or of the host (`linux/capability.h`, vfs_ns_cap_data)."""
    words = (0x03000001 if first else 0x02000001, 1 << 13, 0, 0, 0, *([first] if first else []))
    return struct.pack(f"<{len(words)}I", *words)


def _acl(user: int) -> bytes:
    nobody = 2**32 - 1
    entries = ((1, 7, nobody), (2, 5, user), (4, 5, nobody), (16, 5, nobody), (32, 5, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def tree(plan: Rootfs) -> dict[str, "bytes | str | None"]:
    """Return what a container would see: path to content, link target, or None for a directory."""
    found: dict[str, bytes | str | None] = {}
    with opened(open_rootfs(plan)) as root:
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        with opened(top):
            _collect(top, "", found)
    return found


def _collect(directory: int, prefix: str, found: dict[str, "bytes | str | None"]) -> None:
    for name in os.listdir(directory):
        path = prefix + name
        kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode & 0o170000
        if kind == 0o120000:
            found[path] = os.readlink(name, dir_fd=directory)
        elif kind == 0o040000:
            found[path] = None
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
            with opened(child):
                _collect(child, path + "/", found)
        elif kind == 0o100000:
            with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), "rb") as file:
                found[path] = file.read()
        else:
            found[path] = f"special {kind:o}"
