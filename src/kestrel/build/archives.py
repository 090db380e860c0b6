"""Archives by their bytes, as docker knows them: a tar, plain or packed with gzip, zstd, bzip2 or xz."""

import bz2
import lzma
import os
from io import BytesIO
from typing import BinaryIO

from kestrel.archive.compression import BOMB_RATIO, BOMB_SIZE, LayerReader, sniff
from kestrel.base.errors import DataLoss, KestrelError, ResourceExhausted


def is_archive(file: BinaryIO) -> bool:
    """Tell whether a file is an archive by its first bytes; it stands at its beginning afterwards."""
    head = file.read(1 << 16)
    file.seek(0)
    return _is_archive(head)


class _Bounded:
    """A plain stream behind a packed one, which may not grow without measure (a "decompression bomb")."""

    def __init__(self, plain: "lzma.LZMAFile | bz2.BZ2File", packed: int) -> None:
        self._plain = plain
        self._left = max(BOMB_SIZE, BOMB_RATIO * packed)

    def read(self, size: int = 1 << 17, /) -> bytes:
        try:
            data = self._plain.read(size)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise DataLoss(f"the archive is broken: {error}") from None
        self._left -= len(data)
        if self._left < 0:
            raise ResourceExhausted("the archive unpacks to far more than it is", hint="it was refused")
        return data


def plain(file: BinaryIO) -> "LayerReader | _Bounded":
    """Return a reader of the plain tar in an archive."""
    kind = sniff(os.pread(file.fileno(), 6, 0))
    if kind not in ("xz", "bzip2"):
        return LayerReader(file, what="archive")
    packed = os.fstat(file.fileno()).st_size
    return _Bounded(lzma.LZMAFile(file) if kind == "xz" else bz2.BZ2File(file), packed)


def _is_archive(head: bytes) -> bool:
    """Tell a tar, plain or compressed, by its first bytes."""
    kind = sniff(head[:6])
    if kind in ("bzip2", "xz"):
        try:
            plain = (
                bz2.BZ2Decompressor().decompress(head) if kind == "bzip2" else lzma.LZMADecompressor().decompress(head)
            )
        except (OSError, lzma.LZMAError, EOFError):
            return False
        return _is_tar(plain)
    if kind:
        try:
            return _is_tar(LayerReader(BytesIO(head)).read(512))
        except KestrelError:
            return False
    return _is_tar(head)


def _is_tar(head: bytes) -> bool:
    """Check the header's own sum (POSIX pax, "ustar Interchange Format")."""
    block = head[:512]
    if len(block) < 512:
        return False
    try:
        told = int(block[148:156].strip(b"\0 ") or b"x", 8)
    except ValueError:
        return False
    return told == sum(block[:148]) + 8 * 32 + sum(block[156:])
