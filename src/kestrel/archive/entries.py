"""Tar as layers use it: headers read into normalised entries, whoever wrote them.

Understood are ustar (POSIX.1-1988), pax (POSIX.1-2001, `man 5 tar`), GNU long names, GNU sparse files (the old
header and pax 0.0, 0.1, 1.0), base-256 numbers, star's prefix, and xattrs as SCHILY.xattr records. Global pax
headers are skipped, as containerd and docker do. This walks headers itself because `tarfile` spends 50 us an entry
on generality that layers do not need; a layer of 10,000 files is common.

The bytes come from a stranger. A name is relative, has no `..`, no empty part and no NUL when it leaves here;
sizes are not negative; headers that describe headers are bounded. What cannot be understood is an InvalidArgument
that names the entry, what ends too early is DataLoss. Nothing here touches the filesystem.
"""

import enum
import re
from collections.abc import Iterator
from typing import Final, Protocol
from zlib import adler32

import msgspec

from kestrel.archive import pax
from kestrel.base.errors import DataLoss, InvalidArgument

BLOCK: Final = 512
_PIECE: Final = 1 << 20
_ZERO: Final = bytes(BLOCK)
_OWNER_MAX: Final = 2**32 - 2
"""The last one of the kernel's: one more means "leave it as it is" (`man 2 chown`)."""
_SIZE_MAX: Final = 2**44 - 4096
"""The biggest file of ext4 with blocks of 4 KiB. One that is not sparse would have to be in the tar, whole."""
_EARLIEST: Final = -(2**31) * 1_000_000_000
_LATEST: Final = (2**34 - 2**31 - 1) * 1_000_000_000
"""What ext4 can say of time (inodes of 256 bytes), the least of the usual filesystems; others are brought to that."""
_NAME_LIMIT: Final = 64 * 1024
_SPARSE_LIMIT: Final = 1_000_000
_UNUSUAL = re.compile(rb"\.\.|//|/\.|^\.|^/|\0")


class Kind(enum.Enum):
    """What an entry makes."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One member. `name` is relative without trailing slash, empty for the root itself; not UTF-8 is surrogateescaped.

    `size` is the file's length; `stored` the bytes the archive holds of it (fewer for a sparse file) from byte
    `offset` of the tar on. `mtime` is nanoseconds since the epoch. `link` is the target of a symlink as it is, of a
    hard link normalised like a name. `sparse` lists (offset, length) of the data, None for an ordinary file.
    """

    name: str
    kind: Kind = Kind.FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = {}
    sparse: tuple[tuple[int, int], ...] | None = None
    stored: int = 0
    offset: int = 0


class Source(Protocol):
    """Anything to read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"D": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class TarReader:
    """Iterates over the entries of a tar stream; between two entries `data` gives the current one's bytes.

    The stream is read to its end, padding included, so that a digest taken underneath covers all of it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""
        self._position = 0
        self._consumed = 0
        self._left = 0
        self._padding = 0
        self._name = ""

    def __iter__(self) -> Iterator[Entry]:
        records: dict[str, bytes] = {}
        long_name = long_link = b""
        while True:
            self._skip(self._left + self._padding)
            header = self._header()
            if header is None:
                self._drain()
                return
            flag = header[156:157]
            size = _number(header[124:136], "size")
            if flag in (b"x", b"X"):
                records = pax.parse(self._document(size, pax.LIMIT))
            elif flag == b"g":
                self._document(size, pax.LIMIT)
            elif flag == b"L":
                long_name = self._document(size, _NAME_LIMIT).rstrip(b"\0")
            elif flag == b"K":
                long_link = self._document(size, _NAME_LIMIT).rstrip(b"\0")
            else:
                yield self._entry(header, flag, size, records, long_name, long_link)
                records, long_name, long_link = {}, b"", b""

    def data(self) -> Iterator[memoryview]:
        """Yield the stored bytes of the current entry that were not taken yet, in pieces."""
        while self._left:
            available = len(self._buffer) - self._position
            if not available:
                self._fill()
                continue
            count = min(available, self._left)
            piece = memoryview(self._buffer)[self._position : self._position + count]
            self._position += count
            self._left -= count
            yield piece

    def read(self, limit: int) -> bytes:
        """Return the stored bytes of the current entry as one; raises InvalidArgument when more than `limit`."""
        if self._left > limit:
            raise InvalidArgument(f"{self._name!r} has {self._left} bytes, more than the {limit} allowed")
        return b"".join(self.data())

    # -- one entry

    def _entry(
        self, header: bytes, flag: bytes, size: int, records: dict[str, bytes], long_name: bytes, long_link: bytes
    ) -> Entry:
        raw = records.get("path") or long_name or _header_name(header)
        name = clean(raw)
        self._name = name
        kind = _KINDS.get(flag)
        if kind is None:
            raise InvalidArgument(f"entry {name!r} has the unknown tar type {flag!r}")
        if kind is Kind.FILE and flag in (b"0", b"\0") and raw.endswith(b"/"):
            kind = Kind.DIRECTORY  # tar before POSIX had no type for directories
        if "size" in records:
            size = pax.integer(records, "size")
        if size < 0:
            raise InvalidArgument(f"entry {name!r} has a negative size")
        # Like Go's reader, which docker and containerd use: only files have data, whatever the header says.
        stored = size if kind is Kind.FILE or flag == b"D" else 0
        self._left, self._padding = stored, -stored % BLOCK
        sparse, length = None, stored if kind is Kind.FILE else 0
        if kind is Kind.FILE and (flag == b"S" or pax.SPARSE in records or pax.SPARSE_SIZE in records):
            sparse, length = self._sparse(header, flag, records)
            if length > _SIZE_MAX:
                raise InvalidArgument(f"entry {name!r} has {length} bytes, more than any file")
            raw_name = records.get("GNU.sparse.name")
            if raw_name:
                self._name = name = clean(raw_name)
        link = records.get("linkpath") or long_link or header[157:257].partition(b"\0")[0]
        return Entry(
            name=name,
            kind=kind,
            mode=_number(header[100:108], "mode") & 0o7777,
            uid=self._owner(records, "uid", header[108:116]),
            gid=self._owner(records, "gid", header[116:124]),
            size=length,
            mtime=_time(pax.nanoseconds(records["mtime"]) if "mtime" in records else _seconds(header[136:148])),
            link=_link(kind, link, name),
            major=_number(header[329:337], "device number") if kind in (Kind.CHARACTER, Kind.BLOCK) else 0,
            minor=_number(header[337:345], "device number") if kind in (Kind.CHARACTER, Kind.BLOCK) else 0,
            xattrs=pax.xattrs(records) if records else {},
            sparse=sparse,
            stored=self._left,
            offset=self._consumed + self._position,
        )

    def _owner(self, records: dict[str, bytes], key: str, field: bytes) -> int:
        number = pax.integer(records, key) if key in records else _number(field, key)
        if number > _OWNER_MAX:
            raise InvalidArgument(f"entry {self._name!r} has the impossible {key} {number}")
        return number

    def _sparse(self, header: bytes, flag: bytes, records: dict[str, bytes]) -> tuple[tuple[tuple[int, int], ...], int]:
        if flag == b"S":
            real, spans = self._old_sparse(header)
        else:
            real, given = pax.sparse_map(records)
            spans = self._sparse_in_data() if given is None else given
        end = total = 0
        for start, length in spans:
            if start < end or length < 0 or start + length > real:
                raise InvalidArgument(f"entry {self._name!r} has a sparse map that contradicts itself")
            end = start + length
            total += length
        if total != self._left:
            raise InvalidArgument(f"entry {self._name!r} has a sparse map for {total} bytes but {self._left} of data")
        return tuple(span for span in spans if span[1]), real

    def _old_sparse(self, header: bytes) -> tuple[int, list[tuple[int, int]]]:
        spans = _spans(header[386:482])
        real = _number(header[483:495], "size")
        more = header[482]
        while more:
            block = self._exactly(BLOCK)
            spans += _spans(block[:504])
            more = block[504]
            if len(spans) > _SPARSE_LIMIT:
                raise InvalidArgument(f"entry {self._name!r} has too long a sparse map")
        return real, spans

    def _sparse_in_data(self) -> list[tuple[int, int]]:
        """Read the map of pax sparse format 1.0: decimal numbers, one a line, before the data, padded to a block."""
        text = b""
        numbers: list[int] = []
        wanted = 1
        while len(numbers) < wanted:
            if self._left < BLOCK:
                raise InvalidArgument(f"entry {self._name!r} has an incomplete sparse map")
            text += self._exactly(BLOCK)
            self._left -= BLOCK
            *lines, text = text.split(b"\n")
            for line in lines:
                if len(numbers) == wanted:
                    break
                numbers.append(pax.decimal(line))
                if len(numbers) == 1:
                    wanted = 1 + 2 * numbers[0]
                    if not 1 <= wanted <= 2 * _SPARSE_LIMIT:
                        raise InvalidArgument(f"entry {self._name!r} has too long a sparse map")
        return list(zip(numbers[1::2], numbers[2::2], strict=True))

    # -- the stream

    def _header(self) -> bytes | None:
        """Return the next header, or None at the end: a block of zeros, or no more bytes at an entry's boundary."""
        if len(self._buffer) - self._position < BLOCK and not self._fill(BLOCK):
            return None
        header = self._buffer[self._position : self._position + BLOCK]
        self._position += BLOCK
        if header == _ZERO:
            return None
        _check_sum(header)
        return header

    def _document(self, size: int, limit: int) -> bytes:
        """Return the body of a header that describes the next entry."""
        if not 0 <= size <= limit:
            raise InvalidArgument(f"a tar extension header has {size} bytes, more than the {limit} allowed")
        self._left, self._padding = 0, 0
        return self._exactly(size + -size % BLOCK)[:size]

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) - self._position < count:
            if not self._fill(count):
                raise DataLoss(f"the archive ends in a header after {self._name!r}")
        data = self._buffer[self._position : self._position + count]
        self._position += count
        return data

    def _skip(self, count: int) -> None:
        self._left = self._padding = 0
        while count > (available := len(self._buffer) - self._position):
            count -= available
            self._position = len(self._buffer)
            self._fill()
        self._position += count

    def _fill(self, wanted: int = 1) -> bool:
        """Get more bytes, at least so that `wanted` are there. False at a clean end; DataLoss within something."""
        rest = self._buffer[self._position :]
        self._consumed += self._position
        self._position = 0
        pieces, have = [rest], len(rest)
        while have < wanted or have == len(rest):
            piece = self._source.read(_PIECE)
            if not piece:
                self._buffer = b"".join(pieces)
                if have == 0 and wanted == BLOCK:
                    return False
                raise DataLoss(f"the archive ends in the middle of {self._name!r}")
            pieces.append(piece)
            have += len(piece)
        self._buffer = b"".join(pieces) if rest else pieces[1] if len(pieces) == 2 else b"".join(pieces)
        return True

    def _drain(self) -> None:
        while self._source.read(_PIECE):
            pass


def clean(raw: bytes) -> str:
    """Return a member's name relative and without odd parts; raises InvalidArgument for `..` and NUL.

    `a/../b` is refused too: what it means depends on what `a` is, a link perhaps, and no honest archive needs it.
    """
    if _UNUSUAL.search(raw):
        if b"\0" in raw:
            raise InvalidArgument(f"the name of entry {_shown(raw)} has a zero byte")
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise InvalidArgument(f"the name of entry {_shown(raw)} goes up with `..`")
        raw = b"/".join(parts)
    return raw.rstrip(b"/").decode("utf-8", "surrogateescape")


def _shown(raw: bytes) -> str:
    return repr(raw[:300].decode("utf-8", "replace"))


def _link(kind: Kind, raw: bytes, name: str) -> str:
    if kind is Kind.HARDLINK:
        target = clean(raw)
        if not target:
            raise InvalidArgument(f"hard link {name!r} has no target")
        return target
    if kind is Kind.SYMLINK:
        if not raw or b"\0" in raw:
            raise InvalidArgument(f"symbolic link {name!r} has no usable target")
        return raw.decode("utf-8", "surrogateescape")
    return ""


def _header_name(header: bytes) -> bytes:
    name = header[0:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":  # GNU's magic is "ustar  ", and its prefix field holds times
        width = 131 if header[508:512] == b"tar\0" else 155  # star keeps times behind a shorter prefix
        prefix = header[345 : 345 + width].partition(b"\0")[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _check_sum(header: bytes) -> None:
    """Compare the header's sum, its own field counted as spaces. The low half of Adler-32 is that sum in C speed."""
    field = header[148:156]
    said = _number(field, "checksum")
    spaced = header[:148] + b"        " + header[156:]
    if (adler32(spaced) & 0xFFFF) == (said + 1) % 65521:
        return
    signed = sum(byte - 256 if byte > 127 else byte for byte in spaced)  # what some old tars wrote
    if signed != said:
        raise InvalidArgument("not a tar archive, or a damaged one: a header's checksum is wrong")


def _number(field: bytes, what: str) -> int:
    """Read octal text, or GNU's base-256 when the top bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if value < 0 and what != "mtime":
            raise InvalidArgument(f"a tar header has a negative {what}")
        return value
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        text = field.partition(b"\0")[0].strip()
        if text and all(byte in b"01234567" for byte in text):
            return int(text, 8)
        if not text:
            return 0
        raise InvalidArgument(f"a tar header has an unreadable {what}: {field!r}") from None


def _time(nanoseconds: int) -> int:
    return min(max(nanoseconds, _EARLIEST), _LATEST)


def _seconds(field: bytes) -> int:
    return _number(field, "mtime") * 1_000_000_000


def _spans(table: bytes) -> list[tuple[int, int]]:
    spans = []
    for at in range(0, len(table), 24):
        if table[at : at + 24].strip(b"\0 ") == b"":
            break
        spans.append((_number(table[at : at + 12], "offset"), _number(table[at + 12 : at + 24], "length")))
    return spans
