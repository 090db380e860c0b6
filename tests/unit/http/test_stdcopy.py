"""Docker's multiplexed streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument
from kestrel.http import stdcopy

CHUNKS = st.lists(st.builds(stdcopy.Chunk, st.integers(0, 3), st.binary(max_size=200)), max_size=10)


@given(CHUNKS, st.integers(1, 64))
def test_chunks_survive_however_the_bytes_are_cut(chunks: list[stdcopy.Chunk], step: int) -> None:
    wire = b"".join(stdcopy.encode(chunk.stream, chunk.data) for chunk in chunks)
    decoder, found = stdcopy.Decoder(), []
    for start in range(0, len(wire), step):
        found += decoder.feed(wire[start : start + step])
    assert found == chunks
    assert decoder.pending == 0


def test_a_cut_stream_shows_what_is_pending() -> None:
    decoder = stdcopy.Decoder()
    assert decoder.feed(stdcopy.encode(1, b"hello")[:-1]) == []
    assert decoder.pending == 12


def test_bytes_that_are_no_such_stream_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="not a multiplexed stream"):
        stdcopy.Decoder().feed(b"plain text of a terminal")
