import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.oci.digest import Digest
from kestrel.oci.reference import Reference, is_repository, is_tag

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest", "bitnami/redis:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("ghcr.io/o/i:v1", "ghcr.io/o/i:v1", "ghcr.io/o/i:v1"),
        ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}", f"x@sha256:{HEX}"),
        (f"x:1@sha256:{HEX}", f"docker.io/library/x:1@sha256:{HEX}", f"x:1@sha256:{HEX}"),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar()) == (full, familiar)
    assert Reference.parse(full) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        ":1",
        "/a",
        "a/",
        "a//b",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a b",
        "a:b:c",
        "a:-x",
        "a@",
        "a@sha256:1",
        "a:" + "t" * 129,
        "a/" * 128 + "a",
        HEX,
        "host_name.io:80/x",
        "a\n",
        "a:1\n",
        "é",
        "UPPER",
        "a/UPPER",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Reference.parse(text)


def test_upper_case_gets_the_lower_case_name_as_hint() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse("ghcr.io/Owner/App:V1")
    assert caught.value.hint == "did you mean ghcr.io/owner/app:V1?"


def test_the_digest_decides_over_the_tag() -> None:
    reference = Reference.parse(f"x:1@sha256:{HEX}")
    assert reference.version == f"sha256:{HEX}"
    assert reference.with_tag("2").version == "2"
    assert reference.with_digest(Digest.of(b"")).tag == ""


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except KestrelError:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert is_repository(reference.path)
    assert is_tag(reference.tag) or reference.digest
