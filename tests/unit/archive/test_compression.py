import gzip
import io
import os
import zlib

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from kestrel.archive import compression
from kestrel.archive.compression import LayerReader, LayerWriter, sniff
from kestrel.base.errors import DataLoss, InvalidArgument, ResourceExhausted
from kestrel.oci.digest import Digest


def stored(data: bytes, kind: str, pieces: int = 1) -> bytes:
    sink = io.BytesIO()
    writer = LayerWriter(sink, kind)
    step = max(1, len(data) // pieces)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
    digests = writer.close()
    assert digests == (Digest.of(sink.getvalue()), Digest.of(data))
    return sink.getvalue()


def plain(data: bytes, size: int = 1 << 20) -> bytes:
    reader = LayerReader(io.BytesIO(data))
    out = b"".join(iter(lambda: reader.read(size), b""))
    assert reader.compressed.digest() == Digest.of(data)
    assert reader.plain.digest() == Digest.of(out)
    return out


@pytest.mark.parametrize("kind", ["gzip", "zstd", ""])
@given(data=st.binary(max_size=5000), size=st.integers(1, 4000))
def test_what_is_stored_is_read_back_with_both_digests(kind: str, data: bytes, size: int) -> None:
    assume(kind or not sniff(data))  # plain bytes that begin as another compression does are taken for that
    assert plain(stored(data, kind), size) == data


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_the_pieces_written_do_not_change_the_bytes_stored(kind: str) -> None:
    data = os.urandom(500_000) + bytes(2_000_000) + b"text " * 100_000
    assert len({stored(data, kind, pieces) for pieces in (1, 2, 7, 1000)}) == 1


def test_gzip_has_no_time_and_no_name() -> None:
    assert stored(b"x", "gzip")[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_several_members_are_one_layer(kind: str) -> None:
    assert plain(stored(b"one", kind) + stored(b"", kind) + stored(b"two", kind)) == b"onetwo"


def test_zeros_after_gzip_are_padding() -> None:
    assert plain(gzip.compress(b"x") + bytes(600_000)) == b"x"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_truncated_layer_is_data_loss(kind: str) -> None:
    data = stored(os.urandom(50_000), kind)
    for cut in (8, len(data) // 2, len(data) - 1):
        with pytest.raises(DataLoss, match=r"too early|damaged"):
            plain(data[:cut])


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_damaged_layer_is_data_loss(kind: str) -> None:
    data = bytearray(stored(b"some text " * 5000, kind))
    data[len(data) // 2] ^= 0xFF
    data[-1] ^= 0xFF
    with pytest.raises(DataLoss):
        plain(bytes(data) if kind == "gzip" else bytes(data) + b"junk")


def test_highly_compressed_zeros_come_in_bounded_pieces() -> None:
    for data in (zlib_bomb(300_000_000), zstandard.compress(bytes(300_000_000))):
        reader = LayerReader(io.BytesIO(data))
        longest = total = 0
        while piece := reader.read(1 << 16):
            longest, total = max(longest, len(piece)), total + len(piece)
        assert total == 300_000_000
        assert longest <= 256 << 20


def zlib_bomb(size: int) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, 31)
    return (
        b"".join(encoder.compress(bytes(1 << 20)) for _ in range(size >> 20))
        + encoder.compress(bytes(size % (1 << 20)))
        + encoder.flush()
    )


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "BOMB_SIZE", 1 << 20)
    with pytest.raises(ResourceExhausted, match="unpacks to more than"):
        plain(stored(bytes(64 << 20), "zstd"))


@pytest.mark.parametrize(("head", "name"), [(b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz")])
def test_other_compressions_are_named(head: bytes, name: str) -> None:
    assert sniff(head) == name
    with pytest.raises(InvalidArgument, match=name):
        LayerReader(io.BytesIO(head))
