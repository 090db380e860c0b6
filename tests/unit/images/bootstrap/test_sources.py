from pathlib import Path

import pytest

from kestrel.base.errors import FailedPrecondition
from kestrel.images.bootstrap import sources
from kestrel.images.bootstrap.sources import DEBIAN_KEYRING, Source, deb822, one_line

ARCH = "amd64"


def test_a_sources_file_gives_one_source_for_each_suite() -> None:
    text = "Types: deb deb-src\nURIs: http://mirror/debian/\nSuites: stable stable-updates\nComponents: main contrib\n"
    found = list(deb822(text + "Signed-By: /k.gpg\n", "x.sources", ARCH))
    assert found == [
        Source(
            uri="http://mirror/debian",
            suite=suite,
            components=("main", "contrib"),
            signed_by=("/k.gpg",),
            origin="x.sources",
        )
        for suite in ("stable", "stable-updates")
    ]


def test_a_key_given_inline_is_kept_whole() -> None:
    text = "Types: deb\nURIs: http://m\nSuites: s\nComponents: main\n"
    text += "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n a\n"
    (found,) = deb822(text, "x", ARCH)
    assert isinstance(found, Source)
    assert found.signed_by[0].startswith("-----BEGIN PGP")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Types: deb\nURIs: cdrom:x\nSuites: s\nComponents: main\n", "method"),
        ("Types: deb\nURIs: http://m\nSuites: ./\n", "flat"),
        ("Types: deb\nURIs: http://m\nSuites: s\nComponents: main\nArchitectures: arm64\n", "not for amd64"),
        ("nonsense", "cannot be read"),
    ],
)
def test_a_source_that_cannot_be_used_is_told(text: str, reason: str) -> None:
    (told,) = deb822(text, "x.sources", ARCH)
    assert isinstance(told, str)
    assert reason in told


@pytest.mark.parametrize(
    "text", ["Types: deb-src\nURIs: http://m\nSuites: s\n", "Types: deb\nEnabled: no\nURIs: x\nSuites: s\n"]
)
def test_what_is_not_meant_for_us_is_passed_over_in_silence(text: str) -> None:
    assert list(deb822(text, "x", ARCH)) == []


def test_one_line_sources_are_read_with_their_options() -> None:
    text = "# no\ndeb [arch=amd64,arm64 signed-by=/k.gpg] http://u:p@mirror/debian stable main # yes\n"
    text += "deb http://m s main\n"
    first, second = one_line(text, "sources.list", ARCH)
    assert isinstance(first, Source)
    assert isinstance(second, Source)
    assert (first.suite, first.components, first.signed_by) == ("stable", ("main",), ("/k.gpg",))
    assert "u:p" not in str(first), "credentials are not shown"
    assert second.signed_by == (DEBIAN_KEYRING,), "without Signed-By only Debian's own keys count"


def test_a_list_of_mirrors_in_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "mirrors").write_text("# best\nhttp://near/debian priority:1\nhttp://far/debian\n")
    (found,) = one_line(f"deb mirror+file:{tmp_path}/mirrors stable main", "x", ARCH)
    assert isinstance(found, Source)
    assert found.uri == "http://near/debian"


def test_no_sources_at_all_is_said_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="names none"):
        sources.read(tmp_path)
    (tmp_path / "sources.list").write_text("deb cdrom:[x]/ stable main\n")
    with pytest.raises(FailedPrecondition, match="method that is not supported"):
        sources.read(tmp_path)
