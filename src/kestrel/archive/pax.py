"""Pax records: `length key=value` lines before an entry that say what its header cannot (`man 5 tar`).

Values are bytes: xattrs are binary, and names are whatever the filesystem had.
"""

import re
from collections.abc import Mapping
from typing import Final

from kestrel.base.errors import InvalidArgument

LIMIT: Final = 8 * 1024 * 1024
"""Most bytes of one pax header. The kernel caps an xattr at 64 KiB, so real ones stay far below."""

XATTR: Final = "SCHILY.xattr."
SPARSE: Final = "GNU.sparse.major"
SPARSE_SIZE: Final = "GNU.sparse.size"
_SPANS: Final = "GNU.sparse.map"
_RESET: Final = frozenset({"path", "linkpath", "size", "uid", "gid", "mtime"})
_DECIMAL = re.compile(rb"-?[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,15})(?:\.([0-9]*))?")


def parse(body: bytes) -> dict[str, bytes]:
    """Read all records; of two of one key the later wins. The repeated ones of sparse 0.0 become one map."""
    records: dict[str, bytes] = {}
    spans: list[bytes] = []
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 20)
        digits = body[at:space]
        if space < 0 or not digits.isdigit():
            raise InvalidArgument("a pax header has a record without a length")
        end = at + int(digits)
        if not space + 1 < end <= len(body) or body[end - 1] != 0x0A:
            raise InvalidArgument("a pax header has a record of wrong length")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise InvalidArgument("a pax header has a record without a key")
        name = key.decode("utf-8", "surrogateescape")
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            spans.append(value)
        elif not value and name in _RESET:
            records.pop(name, None)  # an empty value takes an earlier one back
        else:
            records[name] = value
        at = end
    if spans:
        records[_SPANS] = b",".join(spans)
    return records


def format_records(records: Mapping[str, bytes]) -> bytes:
    """Write records in the order given."""
    body = bytearray()
    for key, value in records.items():
        rest = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
        length = len(rest) + len(str(len(rest)))
        if len(str(length)) + len(rest) != length:  # the digits of the length count too
            length += 1
        body += str(length).encode() + rest
    return bytes(body)


def decimal(text: bytes) -> int:
    """Read a whole number."""
    if not _DECIMAL.fullmatch(text):
        raise InvalidArgument(f"a pax header has the unreadable number {text[:40]!r}")
    return int(text)


def integer(records: Mapping[str, bytes], key: str) -> int:
    """Read a record that must be a number from zero on."""
    value = decimal(records[key])
    if value < 0:
        raise InvalidArgument(f"a pax header has a negative {key}")
    return value


def nanoseconds(text: bytes) -> int:
    """Read a time in seconds with any number of decimal places, below nanoseconds cut off."""
    match = _TIME.fullmatch(text)
    if not match:
        raise InvalidArgument(f"a pax header has the unreadable time {text[:40]!r}")
    value = int(match[2]) * 1_000_000_000 + int((match[3] or b"").ljust(9, b"0")[:9])
    return -value if match[1] else value


def xattrs(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the extended attributes among the records."""
    return {key[len(XATTR) :]: value for key, value in records.items() if key.startswith(XATTR)}


def sparse_map(records: Mapping[str, bytes]) -> tuple[int, "list[tuple[int, int]] | None"]:
    """Return the real size and the map; None for the map of format 1.0, which precedes the data."""
    real = integer(records, "GNU.sparse.realsize" if "GNU.sparse.realsize" in records else SPARSE_SIZE)
    if records.get(SPARSE) == b"1":
        return real, None
    text = records.get(_SPANS, b"")
    numbers = [decimal(each) for each in text.split(b",")] if text else []
    if len(numbers) % 2:
        raise InvalidArgument("a pax header has an odd sparse map")
    return real, list(zip(numbers[::2], numbers[1::2], strict=True))
