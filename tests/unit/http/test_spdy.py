"""SPDY framing, one end against the other and against hostile bytes."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.http import spdy

TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
HEADERS = st.dictionaries(TEXT.map(str.lower), TEXT, max_size=8)


def test_the_dictionary_is_the_one_of_the_specification() -> None:
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


@given(st.lists(HEADERS, min_size=1, max_size=5), st.booleans())
def test_headers_survive_in_every_stream_of_a_connection(headers: list[dict[str, str]], fin: bool) -> None:
    client, server = spdy.Codec(), spdy.Codec()
    for index, block in enumerate(headers):
        stream = 2 * index + 1
        assert server.feed(client.open_stream(stream, block, fin=fin)) == [spdy.StreamOpened(stream, block, fin)]
        assert client.feed(server.accept_stream(stream, block)) == [spdy.StreamAccepted(stream, block)]


@given(st.binary(max_size=5000), st.lists(st.integers(1, 50), max_size=50), st.booleans())
def test_frames_are_found_however_the_bytes_are_cut(data: bytes, cuts: list[int], fin: bool) -> None:
    wire = spdy.data_frame(7, data, fin=fin) + spdy.ping_frame(3) + spdy.reset_frame(7, spdy.CANCEL)
    codec, events = spdy.Codec(), []
    position = 0
    for cut in [*cuts, len(wire)]:
        events += codec.feed(wire[position : position + cut])
        position += cut
    assert events == [spdy.DataReceived(7, data, fin), spdy.PingReceived(3), spdy.StreamReset(7, spdy.CANCEL)]


def test_every_other_frame_is_read() -> None:
    settings = b"\x80\x03\x00\x04\x00\x00\x00\x0c" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x07" + b"\x00\x00\x10\x00"
    wire = spdy.goaway_frame(9, 1) + spdy.window_frame(3, 100) + settings
    assert spdy.Codec().feed(wire) == [
        spdy.GoAway(9, 1),
        spdy.WindowUpdated(3, 100),
        spdy.SettingsReceived({7: 4096}),
    ]


def test_unknown_control_frames_are_skipped() -> None:
    wire = b"\x80\x03\x00\x63\x00\x00\x00\x02ab" + spdy.ping_frame(1)
    assert spdy.Codec().feed(wire) == [spdy.PingReceived(1)]


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_nothing_but_a_protocol_error(data: bytes) -> None:
    try:
        spdy.Codec().feed(data)
    except spdy.SpdyError:
        pass


@given(st.binary(max_size=60), st.sampled_from([1, 2, 3, 4, 6, 7, 8, 9]))
def test_hostile_control_frames_raise_nothing_but_a_protocol_error(payload: bytes, kind: int) -> None:
    wire = b"\x80\x03" + kind.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload
    try:
        spdy.Codec().feed(wire)
    except spdy.SpdyError:
        pass


def test_a_frame_that_would_fill_memory_is_refused_before_it_comes() -> None:
    with pytest.raises(spdy.SpdyError, match="longer than"):
        spdy.Codec().feed(b"\x00\x00\x00\x01\x00\xff\xff\xff")


def test_headers_that_expand_without_end_are_refused() -> None:
    compressor = zlib.compressobj(zdict=spdy.DICTIONARY)
    bomb = compressor.compress(b"\x00" * 10_000_000) + compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + bomb
    with pytest.raises(spdy.SpdyError, match="longer than"):
        spdy.Codec().feed(b"\x80\x03\x00\x01" + len(payload).to_bytes(4, "big") + payload)


def test_another_version_is_refused() -> None:
    with pytest.raises(spdy.SpdyError, match="version 2"):
        spdy.Codec().feed(b"\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01")
