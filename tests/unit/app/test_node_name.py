"""What a node is called: once named, it keeps its name, or its pods would be another node's."""

import os
from pathlib import Path

from kestrel.app.cluster import node_name


def test_a_node_is_called_like_its_host(tmp_path: Path) -> None:
    assert node_name("", tmp_path / "kubernetes") == os.uname().nodename.lower()


def test_it_keeps_its_name_when_the_host_has_another(tmp_path: Path) -> None:
    assert node_name("", tmp_path, host="first") == "first"
    assert node_name("", tmp_path, host="second") == "first"


def test_the_name_that_is_given_counts_and_is_not_kept(tmp_path: Path) -> None:
    assert node_name("mine", tmp_path, host="first") == "mine"
    assert node_name("", tmp_path, host="first") == "first"
