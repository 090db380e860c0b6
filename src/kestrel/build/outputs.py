"""Where a build goes besides the store: `type=oci|docker|tar|local,dest=PATH[,compression=gzip|zstd]`.

oci, docker   one tar that is an OCI layout and a docker archive at once; `compression` is that of its layers
tar           the root filesystem as a tar, packed as `compression` says
local         the root filesystem as a directory; what is there of other names stays, as with docker

A file appears under its name only when it is whole.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kestrel.archive.apply import Form, apply
from kestrel.archive.compression import LayerWriter
from kestrel.archive.diff import diff
from kestrel.archive.writer import Sink
from kestrel.base.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, nearest
from kestrel.linux import mounts
from kestrel.linux.rootfs import Rootfs

TYPES: Final = ("oci", "docker", "tar", "local", "image")
COMPRESSIONS: Final = ("none", "uncompressed", "gzip", "zstd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output; `image` is the store itself, which gets every build."""

    type: str
    destination: Path
    compression: str = "none"

    @property
    def packing(self) -> str:
        """The compression, empty for none."""
        return "" if self.compression in ("none", "uncompressed") else self.compression


def parse_output(text: str) -> Output:
    """Read `type=...,dest=...`; a bare path means a directory. Raises InvalidArgument."""
    if "=" not in text:
        return Output(type="local", destination=Path(text))
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    kind, place = fields.pop("type", ""), fields.pop("dest", fields.pop("destination", ""))
    compression = fields.pop("compression", "none")
    output = Output(type=kind, destination=Path(place), compression=compression)
    check_words(output)
    if fields:
        raise InvalidArgument(f"an output has no {next(iter(fields))!r}", hint="there are type, dest and compression")
    if kind != "image" and (not place or place == "-"):
        raise InvalidArgument(f"the output {text!r} says not where", hint=f"write type={kind},dest=PATH")
    return output


def check_words(output: Output) -> None:
    """Refuse a type or a compression that there is not. Raises InvalidArgument."""
    if output.type not in TYPES:
        raise InvalidArgument(f"unknown output type {output.type!r}", hint=_hint(output.type, TYPES))
    if output.compression not in COMPRESSIONS:
        word = output.compression
        raise InvalidArgument(f"unknown compression {word!r}", hint=_hint(word, COMPRESSIONS))


def _hint(word: str, known: tuple[str, ...]) -> str:
    close = nearest(word, known)
    return f"did you mean {close}?" if close else f"it is one of {', '.join(known)}"


@contextmanager
def file_at(output: Output) -> Iterator[Sink]:
    """Give a sink whose bytes become the file `destination` at the end; nothing is left of one that failed."""
    parent = output.destination.absolute().parent
    with _said(output):
        parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".kestrel-", dir=parent)
    try:
        with _room_for(output), open(fd, "wb") as file:
            packed = LayerWriter(file, output.packing if output.type == "tar" else "")
            yield packed
            packed.close()
            os.fchmod(file.fileno(), 0o644)
        with _said(output):
            os.replace(name, output.destination)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _said(output: Output) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise FailedPrecondition(f"the output {output.destination} cannot be written: {reason}") from error


@contextmanager
def _room_for(output: Output) -> Iterator[None]:
    """Name the output when there is no room for it; what else fails there is not the output's."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        reason = (error.strerror or "").lower()
        hint = "make room there, or name another place"
        raise ResourceExhausted(f"the output {output.destination} cannot be written: {reason}", hint=hint) from error


def write_files(rootfs: Rootfs | None, output: Output, clamp: int) -> None:
    """Write a root filesystem as a tar or a directory; None is an empty one. Blocks."""
    with _root(rootfs) as root:
        if output.type == "tar":
            with file_at(output) as sink:
                diff(root, sink, clamp=clamp)
            return
        place = output.destination
        with _said(output):
            place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as file:
            diff(root, file, clamp=clamp)
            file.seek(0)
            apply(file, place, form=Form.PLAIN)


@contextmanager
def _root(rootfs: Rootfs | None) -> Iterator[int]:
    if rootfs is not None:
        with mounts.opened(mounts.open_rootfs(rootfs)) as fd:
            yield fd
        return
    with tempfile.TemporaryDirectory() as empty, mounts.opened(os.open(empty, os.O_RDONLY | os.O_DIRECTORY)) as fd:
        yield fd
