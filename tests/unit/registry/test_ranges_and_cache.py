"""Byte ranges, conditions, upload ids, error tables, and the cache of manifests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import KINDS
from kestrel.oci.digest import Digest
from kestrel.registry import whole
from kestrel.registry.blobs import byte_range, matches
from kestrel.registry.cache import ManifestCache, Ready
from kestrel.registry.errors import KIND, STATUS, Refusal
from kestrel.registry.uploads import new_id


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", None),
        ("bytes=0-9", (0, 10)),
        ("bytes=5-", (5, 95)),
        ("bytes=-10", (90, 10)),
        ("bytes=-500", (0, 100)),
        ("bytes=20-5000", (20, 80)),
        ("bytes=99-99", (99, 1)),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges_of_a_hundred_bytes(text: str, wanted: "tuple[int, int] | None") -> None:
    assert byte_range(text, 100) == wanted


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=500-0", "bytes=50-40", "bytes=5000-10000", "bytes=-0"])
def test_ranges_that_are_not_there_are_refused_with_the_size(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        byte_range(text, 100)
    assert caught.value.status == 416
    assert caught.value.headers["Content-Range"] == "bytes */100"


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_range_never_leaves_the_blob(first: int, last: int, size: int) -> None:
    try:
        found = byte_range(f"bytes={first}-{last}", size)
    except Refusal:
        assert first >= size or last < first
        return
    assert found is not None
    start, count = found
    assert start == first
    assert count > 0
    assert start + count <= size


def test_conditions_name_etags_in_lists_weakly_and_by_star() -> None:
    assert matches('"a", W/"b"', '"b"')
    assert matches("*", '"b"')
    assert not matches('"a"', '"b"')
    assert not matches("", '"b"')


def test_every_kind_of_error_has_a_status_and_a_code_of_the_spec() -> None:
    assert set(KIND) == set(KINDS)
    assert {code for _, code in KIND.values()} <= set(STATUS)
    assert len(STATUS) == 14


def test_an_upload_id_is_unique_and_bound_to_its_repository_and_algorithm() -> None:
    one, two = new_id("a/b", "sha512"), new_id("a/b", "sha512")
    assert one != two
    assert one.split("-")[1:] == two.split("-")[1:]
    assert one.endswith("-sha512")
    assert new_id("a/c", "sha512").split("-")[1] != one.split("-")[1]


def ready(repository: str, size: int = 10) -> Ready:
    return Ready(repository, Digest.of(b""), "t", b"x" * size)


def test_the_cache_forgets_a_repository_at_once() -> None:
    cache = ManifestCache(1 << 20)
    cache.put("/1", ready("a"), cache.generation)
    cache.put("/2", ready("b"), cache.generation)
    cache.drop("a")
    assert cache.get("/1") is None
    assert cache.get("/2") is not None


def test_what_was_read_before_a_change_is_not_put_in_after_it() -> None:
    cache = ManifestCache(1 << 20)
    before = cache.generation
    cache.drop("a")
    cache.put("/1", ready("a"), before)
    assert cache.get("/1") is None


def test_the_cache_stays_within_its_limit_and_keeps_what_is_used() -> None:
    cache = ManifestCache(100_000)
    cache.put("/used", ready("a", 1000), cache.generation)
    for number in range(200):
        cache.put(f"/{number}", ready("a", 1000), cache.generation)
        assert cache.get("/used") is not None
    kept = [number for number in range(200) if cache.get(f"/{number}")]
    assert 20 < len(kept) < 60
    assert kept[-1] == 199
    cache.put("/huge", ready("a", 90_000), cache.generation)
    assert cache.get("/huge") is None


def test_a_head_that_could_smuggle_a_header_is_not_put_together() -> None:
    assert (
        whole.head({"Content-Type": "a/b"}, 3) == b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 3\r\nDate: "
    )
    for value in ("a/b\r\nX: y", "a\nb", "a\0", "ä"):
        assert whole.head({"Content-Type": value}, 3) == b""
