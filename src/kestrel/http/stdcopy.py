"""Docker's multiplexed stream: standard output and error in one byte stream; bytes in, events out, no I/O.

Each frame is one byte for the stream, three zero bytes, the length as a big-endian 32-bit number, then the bytes
(moby `api/pkg/stdcopy`). Stream 3 is an error of the daemon itself.
"""

import struct
from dataclasses import dataclass, field

from kestrel.base.errors import InvalidArgument

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
HEADER = 8
MAX_FRAME = 16 << 20
"""Longest frame taken, in bytes."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one of the streams."""

    stream: int
    data: bytes = field(repr=False)


def encode(stream: int, data: bytes) -> bytes:
    """Return one frame."""
    return struct.pack("!BxxxI", stream, len(data)) + data


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Chunk]:
        """Take bytes of any length and return the frames that are now complete; raises InvalidArgument."""
        self._buffer += data
        found: list[Chunk] = []
        while len(self._buffer) >= HEADER:
            stream, length = struct.unpack_from("!BxxxI", self._buffer)
            if stream > SYSTEM_ERROR or length > MAX_FRAME:
                raise InvalidArgument(f"not a multiplexed stream: stream {stream}, {length} bytes")
            if len(self._buffer) < HEADER + length:
                break
            found.append(Chunk(stream, bytes(self._buffer[HEADER : HEADER + length])))
            del self._buffer[: HEADER + length]
        return found

    @property
    def pending(self) -> int:
        """How many bytes of an incomplete frame wait; above 0 at the end means the stream was cut."""
        return len(self._buffer)
