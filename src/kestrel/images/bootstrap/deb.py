"""A .deb taken apart: an ar archive of `debian-binary`, `control.tar.*` and `data.tar.*` (`man 5 deb`).

The bytes were verified against a signed index before they come here. Paths inside are normalised all the same: a name
that would leave the root is refused.
"""

import gzip
import lzma
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from kestrel.base.errors import DataLoss

_HEADER = 60
_CONTROL_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where the bytes of one ar member are in the file."""

    name: str
    offset: int
    size: int


def members(file: BinaryIO, name: str) -> Iterator[Member]:
    """Yield the members of an ar archive. Raises DataLoss, naming the file, when it is not one."""
    if file.read(8) != b"!<arch>\n":
        raise DataLoss(f"{name} is not a Debian package: no ar archive")
    offset = 8
    while header := _at(file, offset, _HEADER):
        if len(header) < _HEADER or header[58:] != b"`\n":
            raise DataLoss(f"{name} is not a Debian package: broken ar header at byte {offset}")
        size = int(header[48:58])
        yield Member(name=header[:16].decode().strip().rstrip("/"), offset=offset + _HEADER, size=size)
        offset += _HEADER + size + size % 2  # members start at even offsets


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


class _Window:
    """A read-only stream over one member."""

    def __init__(self, file: BinaryIO, member: Member) -> None:
        file.seek(member.offset)
        self._file = file
        self._left = member.size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        data = self._file.read(size)
        self._left -= len(data)
        return data

    def readable(self) -> bool:
        return True

    @property
    def closed(self) -> bool:
        return False


def _plain(window: _Window, member: Member, name: str) -> IO[bytes]:
    stream = cast("IO[bytes]", window)  # the decompressors call read() and nothing else
    match member.name.rpartition(".tar")[2]:
        case ".xz":
            return lzma.open(stream, "rb")
        case ".gz":
            return cast("IO[bytes]", gzip.open(stream, "rb"))
        case ".zst":
            return zstandard.ZstdDecompressor().stream_reader(stream)
        case "":
            return stream
        case other:
            raise DataLoss(f"{name}: packages compressed as {other} are not supported")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A package with its data as a plain tar on disk and its control files in memory."""

    control: dict[str, bytes]
    data: Path


def unpack(path: Path, name: str, target: Path) -> Unpacked:
    """Write a package's data.tar, decompressed, to `target` and read its control files.

    Raises DataLoss, naming the package, when it cannot be understood.
    """
    control: dict[str, bytes] | None = None
    done = False
    try:
        with path.open("rb") as file:
            for member in members(file, name):
                if member.name.startswith("control.tar"):
                    control = _control(_plain(_Window(file, member), member, name))
                elif member.name.startswith("data.tar"):
                    with target.open("wb") as out:
                        shutil.copyfileobj(_plain(_Window(file, member), member, name), out, 1 << 20)
                    done = True
    except (lzma.LZMAError, zstandard.ZstdError, tarfile.TarError, ValueError, EOFError, OSError) as error:
        raise DataLoss(f"{name} cannot be unpacked: {error}") from error
    if control is None or not done or "control" not in control:
        raise DataLoss(f"{name} is not a Debian package: control or data is missing")
    return Unpacked(control=control, data=target)


def _control(stream: IO[bytes]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isreg() and info.size < _CONTROL_LIMIT else None
            if content is not None:
                files[info.name.removeprefix("./")] = content.read()
    return files
