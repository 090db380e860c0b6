import time

import pytest

from kestrel.archive.threaded import ReadAhead, WriteBehind
from kestrel.base.errors import DataLoss


def test_reading_ahead_hands_on_the_error_of_the_source() -> None:
    class Broken:
        def __init__(self) -> None:
            self.calls = 0

        def read(self, _size: int, /) -> bytes:
            self.calls += 1
            if self.calls > 2:
                raise DataLoss("the line broke")
            return b"x"

    with ReadAhead(Broken()) as ahead:
        assert ahead.read() + ahead.read() == b"xx"
        with pytest.raises(DataLoss, match="the line broke"):
            ahead.read()


def test_reading_ahead_can_be_given_up_in_the_middle() -> None:
    class Endless:
        def read(self, _size: int, /) -> bytes:
            return bytes(1000)

    with ReadAhead(Endless()) as ahead:
        assert ahead.read(10) == bytes(10)


class Slow:
    """A sink that takes its time, and refuses one piece."""

    def __init__(self, refused: bytes = b"") -> None:
        self.written: list[bytes] = []
        self._refused = refused

    def write(self, data: "bytes | bytearray | memoryview", /) -> None:
        time.sleep(0.005)
        if data == self._refused:
            raise DataLoss("no room")
        self.written.append(bytes(data))


def test_what_is_written_behind_arrives_in_order_and_before_the_end() -> None:
    sink, pieces = Slow(), [b"%d" % number for number in range(20)]
    with WriteBehind(sink, behind=3) as behind:
        for piece in pieces:
            behind.write(piece)
        assert len(sink.written) < len(pieces)
    assert sink.written == pieces


def test_an_error_behind_is_raised_from_a_later_write() -> None:
    with pytest.raises(DataLoss, match="no room"), WriteBehind(Slow(b"0"), behind=3) as behind:
        for number in range(20):
            behind.write(b"%d" % number)
        pytest.fail("nothing was raised")


def test_an_error_behind_is_raised_at_the_end_at_the_latest() -> None:
    with pytest.raises(DataLoss, match="no room"), WriteBehind(Slow(b"x")) as behind:
        behind.write(b"x")


def test_an_error_in_front_ends_what_is_behind() -> None:
    sink = Slow()
    with pytest.raises(KeyError), WriteBehind(sink) as behind:
        for number in range(8):
            behind.write(b"%d" % number)
        raise KeyError
    written = len(sink.written)
    assert written < 8
    time.sleep(0.02)
    assert len(sink.written) == written
