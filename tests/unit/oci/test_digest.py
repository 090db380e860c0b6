import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument
from kestrel.oci.digest import EMPTY, Digest, Hasher


def test_a_digest_is_a_string_with_parts() -> None:
    digest = Digest.parse("sha256:" + "ab" * 32)
    assert digest == "sha256:" + "ab" * 32
    assert (digest.algorithm, digest.hex, digest.short) == ("sha256", "ab" * 32, "abababababab")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:abc",
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 65,
        "md5:" + "a" * 32,
        "sha512:" + "a" * 64,
        "sha256:../" + "a" * 61,
        ":" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Digest.parse(text)


def test_a_mistyped_algorithm_gets_the_nearest() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Digest.parse("sha265:" + "a" * 64)
    assert caught.value.hint == "did you mean sha256?"


@given(st.lists(st.binary(max_size=200)))
def test_a_hasher_digests_and_counts_what_passes(pieces: list[bytes]) -> None:
    for algorithm in ("sha256", "sha512"):
        hasher = Hasher(algorithm)
        for piece in pieces:
            hasher.update(piece)
        whole = b"".join(pieces)
        assert hasher.digest().hex == hashlib.new(algorithm, whole).hexdigest()
        assert hasher.size == len(whole)
        assert Digest.of(whole, algorithm) == hasher.digest()


def test_the_empty_digest_is_known() -> None:
    assert Digest.of(b"") == EMPTY
