"""What an emptyDir may take on disk."""

import pytest

from kestrel.kube.kubelet import eviction
from kestrel.kube.kubelet.paths import Paths


@pytest.fixture
def paths(tmp_path):
    return Paths(logs=tmp_path / "logs", state=tmp_path / "state", volatile=tmp_path / "volatile")


def limited(make, **source):
    return make.pod("app", volumes=[{"name": "v", "emptyDir": source}, {"name": "c", "configMap": {"name": "x"}}])


def test_only_directories_on_disk_that_have_a_limit_are_measured(make):
    assert eviction.limits(limited(make, sizeLimit="1Mi")) == {"v": "1Mi"}
    assert eviction.limits(limited(make)) == {}
    assert eviction.limits(limited(make, sizeLimit="1Mi", medium="Memory")) == {}


def test_a_directory_beyond_its_limit_is_named(make, paths):
    pod = limited(make, sizeLimit="64Ki")
    directory = paths.volume("u1", "v")
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "small").write_bytes(b"x" * 1000)
    (directory / "sparse").touch()
    with open(directory / "sparse", "r+b") as file:
        file.truncate(10**9)
    assert eviction.overfull(pod, paths) == ""
    (directory / "deep" / "big").write_bytes(b"x" * 100_000)
    assert eviction.overfull(pod, paths) == 'Usage of EmptyDir volume "v" exceeds the limit "64Ki". '


def test_a_volume_that_is_not_there_yet_is_not_too_full(make, paths):
    assert eviction.overfull(limited(make, sizeLimit="1Ki"), paths) == ""
