"""Content addresses: `algorithm:hex`, checked once at the edge and then carried as a type of its own.

A `Digest` is a `str`, so that it can be a dictionary key, an SQL parameter and a piece of a path without
conversion; what is typed `Digest` has been through `parse` or was computed by us. image-spec descriptor.md,
"Registered Algorithms", names sha256 and sha512; nothing else is accepted.
"""

import hashlib
import re
from typing import Final

from kestrel.base.errors import InvalidArgument, nearest

_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")
DEFAULT_ALGORITHM: Final = "sha256"


class Digest(str):
    """A validated `algorithm:hex` string. Build one with `parse`, `of` or `Hasher.digest`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Return `text` as a digest; raises InvalidArgument when it is not one."""
        if isinstance(text, cls):
            return text
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise InvalidArgument(f"invalid digest {text[:140]!r}", hint="write it as sha256: and 64 hex digits")
        length = _HEX_LENGTH.get(algorithm)
        if length is None:
            near = nearest(algorithm, _HEX_LENGTH)
            raise InvalidArgument(
                f"unsupported digest algorithm {algorithm[:40]!r}", hint=f"did you mean {near}?" if near else None
            )
        if len(encoded) != length or not _HEX.fullmatch(encoded):
            raise InvalidArgument(
                f"invalid digest {text[:140]!r}", hint=f"{algorithm} has {length} lower-case hex digits"
            )
        return cls(text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = DEFAULT_ALGORITHM) -> "Digest":
        """Return the digest of bytes in memory."""
        return cls(f"{algorithm}:{hashlib.new(_known(algorithm), data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """The part before the colon: `sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon, lower-case."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hex digits, the form people read."""
        return self.hex[:12]


class Hasher:
    """Counts and digests bytes as they pass. hashlib drops the GIL for large pieces, so threads hash in parallel."""

    __slots__ = ("_hash", "algorithm", "size")

    def __init__(self, algorithm: str = DEFAULT_ALGORITHM) -> None:
        self.algorithm = _known(algorithm)
        self._hash = hashlib.new(algorithm)
        self.size = 0

    def update(self, data: "bytes | bytearray | memoryview") -> None:
        """Take in more bytes."""
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        """Return the digest of everything so far; more may follow."""
        return Digest(f"{self.algorithm}:{self._hash.hexdigest()}")


def _known(algorithm: str) -> str:
    if algorithm not in _HEX_LENGTH:
        raise InvalidArgument(f"unsupported digest algorithm {algorithm[:40]!r}", hint="use sha256 or sha512")
    return algorithm


EMPTY: Final = Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
"""The digest of no bytes at all."""
