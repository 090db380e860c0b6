"""The two building bricks of protobuf's wire format (protobuf.dev, "Encoding"), for whoever writes messages by hand."""

from __future__ import annotations

LENGTH = 2
"""Wire type of everything that carries its length."""


def varint(value: int) -> bytes:
    """An unsigned number, seven bits to the byte."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def delimited(number: int, data: bytes) -> bytes:
    """A field with a length: bytes, text or a message."""
    return varint(number << 3 | LENGTH) + varint(len(data)) + data
