"""Selecting files, on a real directory."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import Conflict, InvalidArgument
from kestrel.build.digests import FileDigests
from kestrel.build.ownership import parse_mode
from kestrel.build.tree import Missing, Tree, resolve
from kestrel.dockerfile import parse_ignore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.py", "b.py", "c.txt", "src/one.py", "src/sub/two.py", "src/sub/data.json", "docs/index.md"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "root"


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    with Tree(os.open(root, os.O_RDONLY | os.O_DIRECTORY), name="the build context") as made:
        yield made


def selected(tree: Tree, pattern: str, **options: tuple[str, ...]) -> list[str]:
    return [
        "/".join(filter(None, (source.path, entry.path)))
        for source in tree.select(pattern, **options)
        for entry in source.entries
    ]


def test_a_directory_comes_with_everything_below_it_in_order(tree: Tree) -> None:
    assert selected(tree, "src") == ["src", "src/one.py", "src/sub", "src/sub/data.json", "src/sub/two.py"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.py", ["a.py", "b.py"]),
        ("./a.py", ["a.py"]),
        ("/a.py", ["a.py"]),
        ("../a.py", ["a.py"]),
        ("[ab].py", ["a.py", "b.py"]),
        ("s*/*.py", ["src/one.py"]),
        ("*/sub/t?o.py", ["src/sub/two.py"]),
        ("nothing*", []),
    ],
)
def test_wildcards_match_as_go_s_filepath_does(tree: Tree, pattern: str, expected: list[str]) -> None:
    assert selected(tree, pattern) == expected


def test_exclude_leaves_files_out(tree: Tree) -> None:
    assert selected(tree, "src", exclude=("**/*.json", "one.py")) == ["src", "src/sub", "src/sub/two.py"]
    assert selected(tree, "*.py", exclude=("b.*",)) == ["a.py"]


def test_parents_are_kept_from_the_pivot_on(tree: Tree) -> None:
    [source] = tree.select_parents("src/./sub/*.py")
    assert [entry.path for entry in source.entries] == ["", "sub", "sub/two.py"]
    [source] = tree.select_parents("**/*.py")
    paths = [entry.path for entry in source.entries]
    assert paths == ["", "a.py", "b.py", "src", "src/one.py", "src/sub", "src/sub/two.py"]
    with pytest.raises(Missing):
        tree.select_parents("absent/file")


def test_links_resolve_inside_the_root_only(root: Path, tree: Tree) -> None:
    (root / "up").symlink_to("../../../../../../etc")
    (root / "abs").symlink_to("/src")
    (root / "loop").symlink_to("loop")
    assert resolve(tree.fd, "up/passwd") == "etc/passwd"
    assert resolve(tree.fd, "abs/one.py") == "src/one.py"
    assert selected(tree, "abs/one.py") == ["src/one.py"]
    with pytest.raises(Missing):
        tree.select("up/passwd")
    with pytest.raises(InvalidArgument, match="too many symbolic links"):
        tree.select("loop")


def test_a_link_to_an_ignored_file_is_as_absent_as_the_file(root: Path) -> None:
    (root / "link").symlink_to("c.txt")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    with Tree(fd, name="the build context", ignore=parse_ignore("c.txt\n")) as tree, pytest.raises(Missing):
        tree.select("link")


def test_wildcards_do_not_see_what_is_ignored(root: Path) -> None:
    ignore = parse_ignore("*\n!a.py\n!src/one.py\n")
    with Tree(os.open(root, os.O_RDONLY | os.O_DIRECTORY), name="the build context", ignore=ignore) as tree:
        assert selected(tree, "*") == ["a.py", "src", "src/one.py"]
        assert selected(tree, "*.py") == ["a.py"]
        assert selected(tree, "d*") == []
        with pytest.raises(Missing, match=r"`b\.py` is excluded"):
            tree.select("b.py")


def test_a_link_that_leads_nowhere_is_not_passed_over(root: Path, tree: Tree) -> None:
    (root / "dangling").symlink_to("/nowhere")
    with pytest.raises(Missing, match="`dangling` is a link, and leads to `nowhere`"):
        tree.select("dang*")


def test_a_socket_is_left_out_unless_it_is_named(root: Path, tree: Tree) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "c.sock"))
    assert selected(tree, "c*") == ["c.txt"]
    with pytest.raises(Missing, match=r"`c\.sock` is a socket, which no layer can hold"):
        tree.select("c.sock")


def test_what_is_missing_is_explained(tree: Tree) -> None:
    with pytest.raises(Missing) as caught:
        tree.select("src/on.py")
    assert caught.value.hint == "did you mean `src/one.py`?"
    with pytest.raises(Missing) as caught:
        tree.select("docs/zzzzzz")
    assert caught.value.hint == "`docs` holds `index.md`"


def digest_all(digests: FileDigests, tree: Tree) -> dict[str, bytes]:
    [source] = tree.select(".")
    return digests.of(tree, source)


def test_digests_are_remembered_and_noticed_when_stale(root: Path, tree: Tree, tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    digests = FileDigests(database)
    for name in ("a.py", "b.py"):
        os.utime(root / name, (1, 1))
    first = digest_all(digests, tree)
    assert digest_all(digests, tree) == first
    (root / "a.py").write_text("b.py")
    os.utime(root / "a.py", (1, 1))  # size and modification time are the same again
    second = digest_all(digests, tree)
    assert second["a.py"] == first["b.py"]
    database.close()


def test_a_file_that_changes_while_it_is_read_is_a_conflict(root: Path, tree: Tree, tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    [source] = tree.select("a.py")
    (root / "a.py").write_text("something longer than before")
    with pytest.raises(Conflict, match=r"`a\.py` changed while it was read"):
        FileDigests(database).of(tree, source)
    database.close()


@pytest.mark.parametrize(
    ("text", "mode", "directory", "expected"),
    [
        ("755", 0o600, False, 0o755),
        ("04755", 0o600, False, 0o4755),
        ("u+x", 0o644, False, 0o744),
        ("+x", 0o644, False, 0o755),
        ("a-w", 0o666, False, 0o444),
        ("go=", 0o777, False, 0o700),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("g=u", 0o640, False, 0o660),
        ("u+s,o+t", 0o755, False, 0o5755),
    ],
)
def test_modes(text: str, mode: int, directory: bool, expected: int) -> None:
    parsed = parse_mode(text)
    assert parsed is not None
    assert parsed.apply(mode, directory=directory) == expected


@pytest.mark.parametrize("text", ["999", "u+q", "x", "0o755", "77777"])
def test_a_mode_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid mode"):
        parse_mode(text)


def parents(tree: Tree, *patterns: str) -> list[str]:
    found = [source for pattern in patterns for source in tree.select_parents(pattern)]
    return [entry.path for source in found for entry in source.entries if entry.path]


def test_parents_are_kept_from_the_pivot_on_also_behind_a_wildcard(tree: Tree) -> None:
    assert parents(tree, "src/sub/two.py") == ["src", "src/sub", "src/sub/two.py"]
    assert parents(tree, "src/./sub/two.py") == ["sub", "sub/two.py"]
    assert parents(tree, "s*/./sub/two.py") == ["sub", "sub/two.py"]
    assert parents(tree, "s*/./**/*.json") == ["sub", "sub/data.json"]


def test_parents_of_a_plain_name_must_be_there_and_those_of_a_wildcard_need_not(tree: Tree) -> None:
    with pytest.raises(Missing):
        parents(tree, "src/nothing")
    with pytest.raises(Missing):
        parents(tree, "src/./nothing")
    [nothing] = tree.select_parents("src/noth*")
    assert [entry.path for entry in nothing.entries] == [""]  # the destination is made all the same
    assert tree.select_parents("noth*/./a") == []
