"""What only the snapshotter that does not unpack has: tars shared with the content store, mounts shared by all."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.linux.mounts import open_layer, open_rootfs, opened
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.digest import Digest
from kestrel.snapshots import Erofs, Overlay, missing
from kestrel.testing.images import layer
from kestrel.testing.snapshot_suite import BASE, add, tree, write

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "kestrel.db")
    yield database
    database.close()


@pytest.fixture
def snapshots(tmp_path: Path, database: Database) -> Iterator[Erofs]:
    snapshots = Erofs(tmp_path, database)
    yield snapshots
    snapshots.close()


def home(root: Path, diff_id: Digest) -> Path:
    return root / "layers" / "sha256" / diff_id.hex


def test_this_kernel_can_do_all_of_it(tmp_path: Path) -> None:
    assert missing(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_cannot_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> int:
        raise OSError(19, "fsopen: No such device")

    monkeypatch.setattr("kestrel.snapshots.erofs.open_layer", refused)
    assert missing(tmp_path) == "fsopen: No such device"


def test_a_plain_blob_and_its_layer_are_one_file(tmp_path: Path, database: Database, snapshots: Erofs) -> None:
    content = Store(tmp_path, database)
    blob = content.put(BASE)
    with content.open(blob) as file:
        snapshots.add_layer(blob, file, kept=content.path(blob))
    assert content.path(blob).samefile(home(tmp_path, blob) / "tar")
    usage = snapshots.layer_usage(blob)
    assert 0 < usage.shared < usage.size
    content.delete(blob)
    assert snapshots.layer_usage(blob).shared == 0
    assert tree(snapshots.view([blob]))["etc/hosts"] == b"localhost"


def test_a_committed_layer_and_its_blob_are_one_file(tmp_path: Path, database: Database, snapshots: Erofs) -> None:
    content = Store(tmp_path, database)
    write(snapshots.prepare("a", [add(snapshots, BASE)]), "new", b"x" * 5000)
    with content.writer() as writer:
        made = snapshots.commit("a", writer, consume=True)
        writer.commit(made.diff_id)
    assert content.path(made.diff_id).samefile(home(tmp_path, made.diff_id) / "tar")
    assert tree(snapshots.view([made.diff_id])) == {"new": b"x" * 5000}


def test_what_is_no_plain_tar_is_not_linked(tmp_path: Path, database: Database, snapshots: Erofs) -> None:
    from kestrel.testing.images import compressed

    content = Store(tmp_path, database)
    blob = content.put(compressed(BASE, "gzip"))
    with content.open(blob) as file:
        snapshots.add_layer(Digest.of(BASE), file, kept=content.path(blob))
    assert (home(tmp_path, Digest.of(BASE)) / "tar").read_bytes() == BASE


def test_all_who_open_a_layer_share_its_mount(snapshots: Erofs) -> None:
    base = add(snapshots, BASE)
    lower = snapshots.view([base]).lowers[0]
    with opened(open_layer(lower)) as one, opened(open_layer(snapshots.prepare("a", [base]).lowers[0])) as two:
        assert os.fstat(one).st_dev == os.fstat(two).st_dev
    own = replace(lower, mounted="", device=0)
    with opened(open_layer(own)) as three:
        assert os.fstat(three).st_dev != lower.device


def test_another_mount_namespace_uses_the_same_mount(snapshots: Erofs, tmp_path: Path) -> None:
    plan = snapshots.prepare("a", [add(snapshots, BASE), add(snapshots, layer({"etc/more": b"1"}))])
    script = (
        "import os, sys, json; from kestrel.linux import syscalls, mounts; from kestrel.linux.rootfs import Rootfs;"
        "syscalls.unshare(0x20000); plan = Rootfs.from_json(json.loads(sys.argv[1]));"
        "fds = [mounts.open_layer(each) for each in plan.lowers];"
        "assert [os.fstat(fd).st_dev for fd in fds] == [each.device for each in plan.lowers];"
        "root = mounts.open_rootfs(plan); print(sorted(os.listdir(f'/proc/self/fd/{root}/etc')))"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(plan.to_json())],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "['hosts', 'more', 'motd']"


@pytest.mark.parametrize("mounted", ["/proc/1/fd/999999", "/proc/self/fd/0", "/etc"])
def test_a_mount_that_is_gone_or_another_is_made_anew(snapshots: Erofs, mounted: str) -> None:
    plan = snapshots.view([add(snapshots, BASE)])
    lower = replace(plan.lowers[0], mounted=mounted)
    assert tree(Rootfs(lowers=(lower,)))["etc/motd"] == b"welcome"


def test_what_is_mounted_goes_with_the_layer_and_on_with_its_users(snapshots: Erofs) -> None:
    before = len(os.listdir("/proc/self/fd"))
    base = add(snapshots, BASE)
    with opened(open_rootfs(snapshots.view([base]))) as root:
        snapshots.remove_layer(base)
        with open(os.open("etc/motd", os.O_RDONLY, dir_fd=root), "rb") as file:
            assert file.read() == b"welcome"
    assert len(os.listdir("/proc/self/fd")) == before


def test_more_layers_than_are_kept_mounted_work(snapshots: Erofs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kestrel.snapshots.erofs._MOUNTS_KEPT", 2)
    layers = [add(snapshots, layer({f"f{number}": b"%d" % number})) for number in range(5)]
    assert len(tree(snapshots.view(layers))) == 5


def test_a_store_of_directories_goes_on_and_a_fallback_drops_what_it_cannot_mount(
    tmp_path: Path, database: Database, snapshots: Erofs
) -> None:
    overlay = Overlay(tmp_path, database)
    old = add(overlay, BASE)
    mixed = Erofs(tmp_path, database)
    new = add(mixed, layer({"etc/more": b"1"}))
    assert tree(mixed.view([old, new]))["etc/more"] == b"1"
    assert [lower.kind for lower in mixed.view([old, new]).lowers] == ["erofs", "directory"]
    mixed.close()
    assert Overlay(tmp_path, database).layers() == [old]


def test_a_layer_without_its_index_is_forgotten(tmp_path: Path, database: Database, snapshots: Erofs) -> None:
    base = add(snapshots, BASE)
    (home(tmp_path, base) / "index").unlink()
    again = Erofs(tmp_path, database)
    assert again.layers() == []
    again.add_layer(base, io.BytesIO(BASE))
    assert again.has_layer(base)


def test_settled_layers_survive_another_boot(tmp_path: Path, database: Database, snapshots: Erofs) -> None:
    base = add(snapshots, BASE)
    assert snapshots.settle() == 1
    database.execute("UPDATE layer SET boot = 'another' WHERE boot <> 'settled'")
    assert Erofs(tmp_path, database).layers() == [base]


def test_a_plan_travels_as_json(snapshots: Erofs) -> None:
    plan = snapshots.view([add(snapshots, BASE)])
    assert Rootfs.from_json(plan.to_json()) == plan
    assert plan.lowers[0].kind == Lower(path="", kind="erofs").kind
