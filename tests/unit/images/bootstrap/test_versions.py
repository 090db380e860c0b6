import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kestrel.images.bootstrap.versions import compare, satisfies

ORDERED = [
    "0~~", "0~~a", "0~", "0", "0a", "0.9", "1a", "1.0~rc1", "1.0~rc1-1", "1.0", "1.0-0.1", "1.0-1~bpo1", "1.0-1",
    "1.0-1+b1", "1.0+dfsg-1", "1.0.1", "1.0.10", "1.2", "1.10", "1:0.1", "2:0",
]  # fmt: skip


def test_versions_sort_as_debian_says() -> None:
    for at, older in enumerate(ORDERED):
        for newer in ORDERED[at + 1 :]:
            assert compare(older, newer) == -1, (older, newer)
            assert compare(newer, older) == 1, (newer, older)


@pytest.mark.parametrize(("left", "right"), [("1.0", "0:1.0"), ("1.0-0", "1.0"), ("1.00", "1.0"), ("1.0", "1.0")])
def test_different_spellings_of_a_version_are_equal(left: str, right: str) -> None:
    assert compare(left, right) == 0


@pytest.mark.parametrize(
    ("operator", "holds"),
    [("<<", False), ("<=", True), ("=", True), (">=", True), (">>", False), ("", True), ("?", False)],
)
def test_a_version_against_itself(operator: str, holds: bool) -> None:
    assert satisfies("2.36-9", operator, "2.36-9") is holds


VERSION = st.from_regex(r"([0-9]:)?[0-9][0-9a-c.+~]{0,6}(-[0-9a-c.+~]{1,3})?", fullmatch=True)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg, which says how versions sort")
@settings(max_examples=60, deadline=None)
@given(VERSION, VERSION)
def test_dpkg_agrees(left: str, right: str) -> None:
    operator = {-1: "lt", 0: "eq", 1: "gt"}[compare(left, right)]
    assert subprocess.run(["dpkg", "--compare-versions", left, operator, right]).returncode == 0
