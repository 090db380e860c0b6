"""Writes tar so that the same entries give the same bytes.

Plain ustar where a field holds the value, a pax header before it where not: long or non-ASCII names, big numbers,
xattrs. No user names, no access times, no sub-second times, no padding beyond the two closing blocks.
"""

from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from kestrel.archive import pax
from kestrel.archive.entries import BLOCK, Entry, Kind, Source
from kestrel.base.errors import DataLoss

_PIECE: Final = 1 << 20
_FLAGS: Final = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}


class Sink(Protocol):
    """Anything to write to; `write` takes all it is given."""

    def write(self, data: "bytes | bytearray | memoryview", /) -> object:
        """Take bytes."""
        ...


@runtime_checkable
class Linkable(Protocol):
    """A sink that is a file, which somebody else may keep too."""

    def link(self, target: Path) -> bool:
        """Give the file the name `target` as well, if nothing was written yet and it can have one there."""
        ...


class TarWriter:
    """Adds entries in the order of the calls; `close` ends the archive (the sink stays open)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size = 0

    def add(self, entry: Entry, data: "bytes | Source" = b"") -> None:
        """Write a header and, for a file, exactly `entry.size` bytes of data; DataLoss when there are fewer."""
        self._write(header(entry))
        if entry.kind is not Kind.FILE or not entry.size:
            return
        if isinstance(data, bytes):
            if len(data) != entry.size:
                raise DataLoss(f"{entry.name!r} was announced with {entry.size} bytes but has {len(data)}")
            self._write(data)
        else:
            self._copy(entry, data)
        padding = -entry.size % BLOCK
        if padding:
            self._write(bytes(padding))

    def close(self) -> None:
        """Write the two zero blocks that end an archive."""
        self._write(bytes(2 * BLOCK))

    def _copy(self, entry: Entry, source: Source) -> None:
        left = entry.size
        while left:
            piece = source.read(min(left, _PIECE))
            if not piece:
                raise DataLoss(f"{entry.name!r} became shorter while it was read")
            self._write(piece)
            left -= len(piece)

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self.size += len(data)


def header(entry: Entry) -> bytes:
    """Return the header blocks of an entry: pax records first where they are needed."""
    name = _encode(entry.name)
    if entry.kind is Kind.DIRECTORY:
        name = name + b"/" if name else b"./"
    records: dict[str, bytes] = {}
    prefix, short = _split(name)
    if short is None:
        records["path"] = name
        prefix, short = b"", name[:100]
    link = _encode(entry.link)
    if len(link) > 100 or not link.isascii():
        records["linkpath"] = link
        link = link[:100]
    size = entry.size if entry.kind is Kind.FILE else 0
    seconds = entry.mtime // 1_000_000_000
    fields = (
        _octal(entry.mode, 8, "", records),
        _octal(entry.uid, 8, "uid", records),
        _octal(entry.gid, 8, "gid", records),
        _octal(size, 12, "size", records),
        _octal(seconds, 12, "mtime", records),
    )
    for key in sorted(entry.xattrs):
        records[pax.XATTR + key] = entry.xattrs[key]
    major = _octal(entry.major, 8, "", records)
    minor = _octal(entry.minor, 8, "", records)
    block = _block(short, fields, _FLAGS[entry.kind], link, major, minor, prefix)
    return _extension(records) + block if records else block


def _extension(records: dict[str, bytes]) -> bytes:
    body = pax.format_records(records)
    unneeded: dict[str, bytes] = {}
    fields = tuple(_octal(value, width, "", unneeded) for value, width in ((0o644, 8), (0, 8), (0, 8)))
    fields += (_octal(len(body), 12, "", unneeded), _octal(0, 12, "", unneeded))
    zero = _octal(0, 8, "", unneeded)
    return _block(b"pax", fields, b"x", b"", zero, zero, b"") + body + bytes(-len(body) % BLOCK)


def _block(
    name: bytes, fields: tuple[bytes, ...], flag: bytes, link: bytes, major: bytes, minor: bytes, prefix: bytes
) -> bytes:
    head = name.ljust(100, b"\0") + b"".join(fields)
    tail = flag + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + major + minor + prefix.ljust(155, b"\0")
    total = sum(head) + sum(tail) + 8 * 0x20
    return (head + b"%06o\0 " % total + tail).ljust(BLOCK, b"\0")


def _octal(value: int, width: int, key: str, records: dict[str, bytes]) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if not key:
        raise ValueError(f"{value} does not fit into a tar header")
    records[key] = b"%d" % value
    return b"0" * (width - 1) + b"\0"


def _split(name: bytes) -> tuple[bytes, "bytes | None"]:
    """Return (prefix, name) as ustar stores them, or None for the name when it needs a pax record."""
    if not name.isascii():
        return b"", None
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, 156)
    if cut > 0 and 0 < len(name) - cut - 1 <= 100:
        return name[:cut], name[cut + 1 :]
    return b"", None


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
