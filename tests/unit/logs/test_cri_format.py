"""The CRI log line."""

import pytest

from kestrel.logs.cri_format import Entry, line, parse, parse_moment


def test_a_full_line_is_read_with_its_spaces():
    entry = parse(b"2026-01-02T03:04:05.000000006Z stdout F hello  world ")
    assert entry == Entry(1767323045_000000006, "stdout", b"hello  world ")


def test_a_partial_line_says_so():
    entry = parse(b"2026-01-02T03:04:05Z stderr P half")
    assert entry is not None
    assert entry.partial
    assert entry.stream == "stderr"


def test_a_later_tag_is_ignored():
    entry = parse(b"2026-01-02T03:04:05Z stderr F:x half")
    assert entry is not None
    assert not entry.partial


def test_an_empty_text_is_a_line():
    assert parse(b"2026-01-02T03:04:05Z stdout F ") == Entry(1767323045_000000000, "stdout", b"")
    assert parse(b"2026-01-02T03:04:05Z stdout F") == Entry(1767323045_000000000, "stdout", b"")


def test_a_zone_offset_is_taken_off():
    assert parse_moment(b"2026-01-02T05:04:05+02:00") == 1767323045_000000000
    assert parse_moment(b"2026-01-02T01:34:05-01:30") == 1767323045_000000000


@pytest.mark.parametrize(
    "torn",
    [b"", b"2026", b"2026-01-02T03:04:05Z", b"x stdout F a", b"2026-01-02T03:04:05Z out F a", b"1Z stdout X a"],
)
def test_what_is_not_a_log_line_is_none(torn):
    assert parse(torn) is None


def test_a_written_line_is_read_back():
    entry = Entry(1767323045_120000000, "stdout", b"\xff text", True)
    assert parse(line(entry)[:-1]) == entry
