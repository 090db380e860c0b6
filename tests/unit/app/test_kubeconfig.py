"""What is done to a kubeconfig of the user's."""

import pytest
import yaml

from kestrel.app import kubeconfig
from kestrel.base.errors import InvalidArgument
from kestrel.kube.apiserver import kubeconfig as document

OURS = document("https://127.0.0.1:6443", b"CA", {"token": "secret"})
THEIRS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://work"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
    "preferences": {"colors": True},
}


def test_a_missing_file_is_made_and_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "kube" / "config"
    kubeconfig.install(path, OURS)
    assert yaml.safe_load(path.read_text())["current-context"] == "kestrel"
    assert path.stat().st_mode & 0o777 == 0o600


def test_clusters_of_others_and_the_current_context_are_kept(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(THEIRS))
    kubeconfig.install(path, OURS)
    kubeconfig.install(path, OURS)
    found = yaml.safe_load(path.read_text())
    assert [c["name"] for c in found["contexts"]] == ["work", "kestrel"]
    assert found["current-context"] == "work"
    assert found["preferences"] == {"colors": True}


def test_removal_leaves_what_was_there_before(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(THEIRS))
    kubeconfig.install(path, OURS)
    kubeconfig.remove(path, "kestrel")
    assert yaml.safe_load(path.read_text()) == THEIRS


def test_a_file_of_ours_alone_is_deleted(tmp_path):
    path = tmp_path / "config"
    kubeconfig.install(path, OURS)
    kubeconfig.remove(path, "kestrel")
    assert not path.exists()


def test_a_file_that_is_no_kubeconfig_is_left_alone_and_named(tmp_path):
    path = tmp_path / "config"
    path.write_text("{broken")
    with pytest.raises(InvalidArgument, match="not a kubeconfig"):
        kubeconfig.install(path, OURS)
    assert path.read_text() == "{broken"
