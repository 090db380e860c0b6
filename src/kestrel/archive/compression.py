"""Compression of layers: recognised by content, not by what a media type claims; both digests taken on the way.

Reading: `LayerReader` hashes the bytes as stored and the plain bytes as they come out, so a pulled layer is
decompressed once while both identities are checked. Inflating by isal, zstd by libzstd; both drop the GIL, so
`threaded.ReadAhead` moves this work to a thread beside the one that unpacks.

Writing: the same plain bytes give the same compressed bytes, whatever pieces they come in, as long as the encoder
stays the same (`ENCODERS` names it, for cache keys). The gzip header has no name and time zero (RFC 1952).
"""

from importlib.metadata import version
from typing import Final, Protocol, cast

import zstandard
from isal import isal_zlib

from kestrel.archive.entries import Source
from kestrel.archive.writer import Sink
from kestrel.base.errors import DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted
from kestrel.oci.digest import DEFAULT_ALGORITHM, Digest, Hasher

PIECE: Final = 1 << 20
_DAMAGED: Final = cast("type[Exception]", isal_zlib.error)  # its stub does not say that it is an exception
_GZIP: Final = 31  # zlib's window bits for "gzip, 32 KiB window"
_GZIP_LEVEL: Final = 2
_ZSTD_LEVEL: Final = 3
_ZSTD_STEP: Final = 4096
_LONGEST_MAGIC: Final = 6
_ZSTD_WINDOW: Final = 128 * 1024 * 1024
ENCODERS: Final = {
    "gzip": f"isal-{version('isal')}-{_GZIP_LEVEL}",
    "zstd": f"zstandard-{version('zstandard')}-{_ZSTD_LEVEL}",
}
"""Who writes which compression: the same one gives the same bytes."""
BOMB_SIZE: Final = 4 * 1024**3
BOMB_RATIO: Final = 500
"""More than BOMB_SIZE plain bytes from less than a BOMB_RATIO-th of it is taken for an attack on the disk."""

_MAGIC: Final = ((b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_FOREIGN: Final = ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))


def sniff(head: bytes) -> str:
    """Say `gzip`, `zstd`, `bzip2`, `xz` or, for anything else, the empty string, from the first six bytes."""
    return next((name for magic, name in _MAGIC + _FOREIGN if head.startswith(magic)), "")


class LayerReader:
    """Reads a layer's plain tar from its stored form. `compressed` and `plain` are the two running digests.

    With `verified`, somebody else checks the stored form, and `compressed` only counts. `what` is for errors.
    """

    def __init__(
        self,
        source: Source,
        *,
        algorithm: str = DEFAULT_ALGORITHM,
        diff_algorithm: str = DEFAULT_ALGORITHM,
        verified: bool = False,
        what: str = "layer",
    ) -> None:
        self._stored = _Stored(source, _Counter() if verified else Hasher(algorithm), what)
        self.compressed = self._stored.hasher
        self.plain = Hasher(diff_algorithm)
        self.compression = sniff(self._stored.peek())
        self._plain = _inflater(self.compression, self._stored)

    def read(self, size: int = PIECE, /) -> bytes:
        """Return some plain bytes, `size` at most, none at the end. Raises DataLoss when the stored form is broken."""
        data = self._plain.read(size)
        self.plain.update(data)
        if self.plain.size > BOMB_SIZE and self.plain.size > BOMB_RATIO * self.compressed.size:
            raise ResourceExhausted(
                f"the {self._stored.what} of {self.compressed.size} bytes unpacks to more than {self.plain.size}",
                hint=f"this looks like a decompression bomb; the {self._stored.what} was refused",
            )
        return data

    def finish(self) -> None:
        """Read what is left, so that both digests cover everything."""
        while self.read():
            pass


class _Counter(Hasher):
    """Knows how many bytes there were, and not which."""

    def update(self, data: "bytes | bytearray | memoryview") -> None:
        self.size += len(data)

    def digest(self) -> Digest:
        raise FailedPrecondition("these bytes were counted, not digested")


class _Stored:
    """The bytes as they came, hashed on the way, with a look at the first ones."""

    def __init__(self, source: Source, hasher: Hasher, what: str) -> None:
        self._source = source
        self.what = what
        self._head = b""
        self.hasher = hasher

    def peek(self) -> bytes:
        while len(self._head) < _LONGEST_MAGIC:
            piece = self._source.read(PIECE)
            if not piece:
                break
            self._head += piece
        self.hasher.update(self._head)
        return self._head[:_LONGEST_MAGIC]

    def read(self, size: int, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        piece = self._source.read(size)
        self.hasher.update(piece)
        return piece


class _Gzip:
    """Any number of gzip members, one after the other, as RFC 1952 allows; zero bytes may pad the end."""

    def __init__(self, stored: _Stored) -> None:
        self._stored = stored
        self._member = isal_zlib.decompressobj(wbits=_GZIP)
        self._waiting = b""
        self._more = False

    def read(self, size: int, /) -> bytes:
        while True:
            if not self._waiting and not self._more:
                self._waiting = self._stored.read(PIECE // 4)
                if not self._waiting and not self._member.eof:
                    raise DataLoss(f"the gzip data of the {self._stored.what} ends too early")
            if self._member.eof:
                self._waiting = self._waiting.lstrip(b"\0")
                if not self._waiting:
                    if self._ended():
                        return b""
                    continue
                self._member = isal_zlib.decompressobj(wbits=_GZIP)
            data = self._inflate(size)
            if data:
                return data

    def _ended(self) -> bool:
        self._waiting = self._stored.read(PIECE // 4)
        return not self._waiting

    def _inflate(self, size: int) -> bytes:
        try:
            # A bounded length: 256 KiB of deflate can hold 264 MB of zeros.
            data = self._member.decompress(self._waiting, min(size, PIECE))
        except _DAMAGED as error:
            raise DataLoss(f"the gzip data of the {self._stored.what} is damaged: {error}") from error
        self._more = len(data) >= min(size, PIECE) and not self._member.eof  # it may hold back what did not fit
        self._waiting = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return data


class _Zstd:
    """Any number of zstd frames. A window beyond 128 MiB is refused; RFC 8878 section 3.1.1.1.2 asks for 8 MiB."""

    def __init__(self, stored: _Stored) -> None:
        self._stored = stored
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._context.decompressobj()
        self._waiting = b""
        self._finished = False

    def read(self, size: int, /) -> bytes:
        out: list[bytes] = []
        have = 0
        while have < min(size, PIECE):
            if not self._waiting:
                self._waiting = self._stored.read(PIECE // 4)
            if not self._waiting:
                if not self._finished:
                    raise DataLoss(f"the zstd data of the {self._stored.what} ends too early")
                break
            data = self._inflate()
            out.append(data)
            have += len(data)
        return b"".join(out)

    def _inflate(self) -> bytes:
        if self._finished:
            self._frame = self._context.decompressobj()
        # Small steps, because one call returns all it can: four bytes of zstd may stand for 128 KiB.
        step, self._waiting = self._waiting[:_ZSTD_STEP], self._waiting[_ZSTD_STEP:]
        try:
            data = self._frame.decompress(step)
        except zstandard.ZstdError as error:
            raise DataLoss(f"the zstd data of the {self._stored.what} is damaged: {error}") from error
        self._finished = self._frame.eof
        if self._finished:
            self._waiting = self._frame.unused_data + self._waiting
        return data


def _inflater(compression: str, stored: _Stored) -> Source:
    if compression == "gzip":
        return _Gzip(stored)
    if compression == "zstd":
        return _Zstd(stored)
    if compression:
        raise InvalidArgument(f"{compression} is not a compression of layers", hint="use gzip, zstd or none")
    return stored


class LayerWriter:
    """Writes a layer: plain tar in, `compression` out, both digests on the way. `close` ends it."""

    def __init__(self, sink: Sink, compression: str = "gzip") -> None:
        self._sink = sink
        self._encoder = _encoder(compression)
        self.compression = compression
        self.plain = Hasher()
        self.compressed = Hasher()
        self._waiting = bytearray()

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:
        """Take plain bytes. They go to the encoder in pieces of one size, which makes its output repeatable."""
        self.plain.update(data)
        if self._encoder is None:
            self._emit(bytes(data))
            return len(data)
        self._waiting += data
        while len(self._waiting) >= PIECE:
            self._emit(self._encoder.compress(bytes(self._waiting[:PIECE])))
            del self._waiting[:PIECE]
        return len(data)

    def close(self) -> tuple[Digest, Digest]:
        """Write the end; returns (digest as stored, diff_id)."""
        if self._encoder is not None:
            self._emit(self._encoder.compress(bytes(self._waiting)) + self._encoder.flush())
            self._waiting.clear()
            self._encoder = None
        return self.compressed.digest(), self.plain.digest()

    def _emit(self, data: bytes) -> None:
        if data:
            self.compressed.update(data)
            self._sink.write(data)


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def _encoder(compression: str) -> "_Encoder | None":
    if compression == "gzip":
        return isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP)
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    if compression:
        raise InvalidArgument(f"unknown compression {compression!r}", hint="use gzip, zstd or none")
    return None
