"""Volumes on disk: projected files that change at once, host paths, empty directories, sub-paths."""

import os
import socket

import pytest

from kestrel.base.errors import FailedPrecondition, Unimplemented
from kestrel.kube.kubelet import mounts, projected_files
from kestrel.kube.kubelet.paths import Paths
from kestrel.kube.kubelet.projection import File
from kestrel.testing.clock import HandClock


@pytest.fixture
def paths(tmp_path):
    return Paths(logs=tmp_path / "logs", state=tmp_path / "state", volatile=tmp_path / "run")


def write(root, files, **more):
    return projected_files.write(root, files, now=HandClock().now(), **more)


def test_an_update_swaps_all_files_at_once_and_clears_the_old(tmp_path):
    root = tmp_path / "v"
    assert write(root, {"a": File(b"1"), "d/b": File(b"2", 0o400)})
    first = os.readlink(root / "..data")
    assert (root / "a").read_bytes() == b"1"
    assert os.readlink(root / "d") == "..data/d"
    assert (root / "d/b").stat().st_mode & 0o777 == 0o400
    assert write(root, {"a": File(b"new"), "c": File(b"3")})
    assert (root / "a").read_bytes() == b"new"
    assert not (root / "d").exists()
    assert sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("..2")) == ["..data", "a", "c"]
    assert not (root / first).exists()


def test_the_same_files_are_not_written_again(tmp_path):
    root = tmp_path / "v"
    write(root, {"a": File(b"1")})
    before = os.readlink(root / "..data")
    assert not write(root, {"a": File(b"1")})
    assert os.readlink(root / "..data") == before
    assert write(root, {"a": File(b"1", 0o600)})


def test_an_empty_volume_is_an_empty_directory(tmp_path):
    assert write(tmp_path / "v", {})
    assert [e.name for e in (tmp_path / "v").iterdir() if not e.name.startswith("..")] == []


def prepared(make, paths, volume, **more):
    more.setdefault("claims", {})
    more.setdefault("group", None)
    return mounts.prepare(make.pod(), {"name": "v", **volume}, paths, **more)


@pytest.mark.parametrize(
    ("kind", "there", "problem"),
    [
        ("Directory", "file", "is not a directory"),
        ("Directory", None, "is not a directory"),
        ("File", "directory", "is not a file"),
        ("Socket", "file", "is not a socket"),
        ("CharDevice", "file", "is not a character device"),
        ("BlockDevice", "file", "is not a block device"),
        ("DirectoryOrCreate", None, ""),
        ("FileOrCreate", None, ""),
        ("Directory", "directory", ""),
        ("File", "file", ""),
        ("", None, ""),
        ("Socket", "socket", ""),
    ],
)
def test_host_paths_are_what_their_type_says(make, paths, tmp_path, kind, there, problem):
    path = tmp_path / "host"
    if there == "file":
        path.touch()
    elif there == "directory":
        path.mkdir()
    elif there == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    volume = {"hostPath": {"path": str(path), "type": kind}}
    if problem:
        with pytest.raises(FailedPrecondition, match=f"hostPath type check failed: {path} {problem}"):
            prepared(make, paths, volume)
    else:
        assert prepared(make, paths, volume).path == path
        assert path.exists()


def test_an_empty_directory_is_everybodys_and_outlives_a_restart(make, paths):
    ready = prepared(make, paths, {"emptyDir": {}})
    assert ready.path.stat().st_mode & 0o777 == 0o777
    (ready.path / "file").touch()
    assert (prepared(make, paths, {"emptyDir": {}}).path / "file").exists()
    mounts.clean_up("u1", paths)
    assert not ready.path.exists()


def test_a_volume_of_another_kind_is_refused_clearly(make, paths):
    with pytest.raises(Unimplemented, match="volumes of this kind are not supported: nfs"):
        prepared(make, paths, {"nfs": {"server": "x", "path": "/"}})


def staged(paths, volume, **mount):
    container = {"name": "app", "volumeMounts": [{"name": "v", "mountPath": "/m", **mount}]}
    return mounts.container_mounts(
        container, {"v": volume}, paths.stage("u1", "app"), lambda text: text.replace("$(A)", "x")
    )


def test_mounts_say_where_how_and_with_which_propagation(paths, tmp_path):
    found = staged(paths, mounts.Ready(path=tmp_path), readOnly=True, mountPropagation="HostToContainer")
    (mount,) = found.mounts
    assert (mount.target, mount.source, mount.read_only, mount.propagation) == ("/m", str(tmp_path), True, "rslave")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_sub_path_is_mounted_for_the_start_only(paths, tmp_path):
    (tmp_path / "volume").mkdir()
    found = staged(paths, mounts.Ready(path=tmp_path / "volume"), subPathExpr="$(A)/deep")
    place = found.mounts[0].source
    (tmp_path / "volume" / "x" / "deep" / "file").touch()
    try:
        assert os.listdir(place) == ["file"]
    finally:
        found.close()
    assert not os.path.exists(place)
    assert (tmp_path / "volume" / "x" / "deep" / "file").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_link_in_a_sub_path_stays_inside_the_volume(paths, tmp_path):
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (outside / "secret").touch()
    (volume / "link").symlink_to(outside)
    try:
        found = staged(paths, mounts.Ready(path=volume), subPath="link")
    except (FailedPrecondition, OSError):
        return
    try:
        assert os.listdir(found.mounts[0].source) == []
    finally:
        found.close()


def test_a_sub_path_with_dots_is_refused(paths, tmp_path):
    with pytest.raises(FailedPrecondition, match="invalid subPath"):
        staged(paths, mounts.Ready(path=tmp_path), subPath="../x")
