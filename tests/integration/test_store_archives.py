"""Our tar against the peers: GNU tar in both directions, and overlayfs as the judge of changesets."""

import io
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kestrel.archive.apply import apply
from kestrel.archive.diff import diff
from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition
from kestrel.linux.mounts import open_rootfs, opened
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.digest import Digest
from kestrel.snapshots import Overlay
from kestrel.testing.trees import listing, make_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SECOND = 1_000_000_000
BRISK = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


NAMES = st.text(st.sampled_from("ab.c é-_" + "\udce9"), min_size=1, max_size=8).filter(
    lambda n: n not in (".", "..") and not n.startswith(".wh.")
)


@pytest.mark.parametrize("format_", ["gnu", "oldgnu", "pax", "posix"])
@pytest.mark.parametrize("sparse", ["", "0.0", "0.1", "1.0"])
@BRISK
@given(seed=st.integers(0, 2**32))
def test_what_gnu_tar_packs_we_unpack_alike(
    tmp_path_factory: pytest.TempPathFactory, format_: str, sparse: str, seed: int
) -> None:
    work = tmp_path_factory.mktemp("tar")
    try:
        for name in ("source", "ours", "theirs"):
            (work / name).mkdir()
        make_tree(work / "source", random.Random(seed))
        command = [
            "tar",
            "-C",
            work / "source",
            f"--format={format_}",
            "--xattrs",
            "--xattrs-include=user.*",
            "-cf",
            work / "a.tar",
        ]
        if sparse:
            command += ["-S"] + ([f"--sparse-version={sparse}"] if format_ in ("pax", "posix") else [])
        if format_ in ("gnu", "oldgnu"):
            command.remove("--xattrs")
            command.remove("--xattrs-include=user.*")
        subprocess.run([*command, "."], check=True, capture_output=True)
        options = ["--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-p"]
        subprocess.run(["tar", "-C", work / "theirs", *options, "-xf", work / "a.tar"], check=True, capture_output=True)
        with (work / "a.tar").open("rb") as file:
            apply(file, work / "ours")
        assert listing(work / "ours") == listing(work / "theirs")
    finally:
        shutil.rmtree(work)


@BRISK
@given(seed=st.integers(0, 2**32))
def test_what_we_pack_gnu_tar_unpacks_alike(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    work = tmp_path_factory.mktemp("tar")
    try:
        for name in ("source", "ours", "theirs"):
            (work / name).mkdir()
        make_tree(work / "source", random.Random(seed))
        with (work / "a.tar").open("wb") as file:
            diff(work / "source", file)
        options = ["--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-p"]
        subprocess.run(["tar", "-C", work / "theirs", *options, "-xf", work / "a.tar"], check=True, capture_output=True)
        with (work / "a.tar").open("rb") as file:
            apply(file, work / "ours")
        assert listing(work / "theirs") == listing(work / "source")
        assert listing(work / "ours") == listing(work / "source")
    finally:
        shutil.rmtree(work)


def change(root: int, chooser: random.Random) -> None:
    """Do to a mounted root what containers do: create, delete, replace, rename, link, change modes."""
    for number in range(chooser.randint(1, 12)):
        top = f"/proc/self/fd/{root}"
        everything = [Path(base) / name for base, dirs, files in os.walk(top) for name in dirs + files]
        path = chooser.choice(everything) if everything else Path(top) / "first"
        fresh = (path if path.is_dir() and not path.is_symlink() else path.parent) / f"new{number}"
        verb = chooser.choice(["write", "delete", "replace", "rename", "link", "chmod", "mkdir", "symlink"])
        try:
            if verb == "write":
                fresh.write_bytes(b"new")
            elif verb == "mkdir":
                fresh.mkdir()
            elif verb == "symlink":
                fresh.symlink_to("anywhere")
            elif verb == "link":
                os.link(path, fresh, follow_symlinks=False)
            elif verb == "chmod":
                path.lstat() and not path.is_symlink() and path.chmod(0o711)
            elif verb == "rename":
                path.rename(fresh)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
                if verb == "replace":
                    path.mkdir()
                    (path / "inside").write_bytes(b"1")
            else:
                path.unlink()
                if verb == "replace":
                    path.mkdir()
        except OSError:
            continue  # EXDEV for a directory of a lower layer, EPERM for a link to one, and their like


@pytest.mark.parametrize("consume", [False, True])
@BRISK
@given(seed=st.integers(0, 2**32))
def test_a_committed_layer_shows_what_the_snapshot_showed(
    tmp_path_factory: pytest.TempPathFactory, consume: bool, seed: int
) -> None:
    work = tmp_path_factory.mktemp("overlay")
    chooser = random.Random(seed)
    database = Database(work / "db")
    try:
        overlay = Overlay(work, database)
        plan = overlay.prepare("base", [])
        make_tree(Path(plan.upper), chooser)
        base = overlay.commit("base", io.BytesIO(), consume=True).diff_id
        with opened(open_rootfs(overlay.prepare("top", [base]))) as root:
            change(root, chooser)
            shown = listing(root, times=False)
        tar = io.BytesIO()
        diff_id = overlay.commit("top", tar, consume=consume).diff_id
        if not consume:
            overlay.add_layer(diff_id, io.BytesIO(tar.getvalue()))
        with opened(open_rootfs(overlay.view([base, diff_id]))) as root:
            assert listing(root, times=False) == shown
        with opened(open_rootfs(overlay.prepare("again", [base, diff_id]))) as root:
            assert listing(root, times=False) == shown
        again = io.BytesIO()
        diff(Path(overlay.view([diff_id]).lowers[0].path), again)
        assert Digest.of(again.getvalue()) == diff_id  # unpacked or frozen, the layer packs to the same bytes
    finally:
        database.close()
        shutil.rmtree(work)


def test_a_snapshot_written_with_redirects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "trusted.overlay.redirect", b"/elsewhere")
    with pytest.raises(FailedPrecondition, match="redirect"):
        diff(tmp_path, io.BytesIO())


def test_a_tree_too_deep_to_pack_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 302)).mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match="directories deep"):
        diff(tmp_path, io.BytesIO())


def test_sockets_are_not_content(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    assert diff(tmp_path, io.BytesIO()).entries == 0


def test_times_are_clamped_and_cut_to_seconds(tmp_path: Path) -> None:
    for name, mtime in (("old", 5 * SECOND + 999), ("young", 50 * SECOND)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, ns=(0, mtime))
    out = tmp_path.parent / "out"
    out.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    diff(tmp_path, buffer, clamp=10 * SECOND)
    apply(io.BytesIO(buffer.getvalue()), out)
    assert [(out / name).stat().st_mtime_ns for name in ("old", "young")] == [5 * SECOND, 10 * SECOND]


def test_layers_by_hand_show_what_overlayfs_shows(tmp_path: Path) -> None:
    """The plan of `linux.rootfs` with our directories is what the kernel calls a layer."""
    for name in ("low", "high"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/gone").write_bytes(b"1")
    os.mknod(tmp_path / "high/gone", stat.S_IFCHR, 0)
    plan = Rootfs(lowers=(Lower(path=str(tmp_path / "high")), Lower(path=str(tmp_path / "low"))))
    with opened(open_rootfs(plan)) as root:
        assert listing(root) == {}
