"""Layers that are not unpacked: the plain tar, and an EROFS index of it that the kernel mounts.

    <root>/layers/<algorithm>/<hex>/tar      the plain tar; where the content store has it as a blob, a link to that
    <root>/layers/<algorithm>/<hex>/index    names, modes, xattrs, and where in the tar each file's bytes are

A pulled layer is decompressed once: while one thread inflates and hashes, another reads the headers that come out,
writes the tar and lets `archive.layertree` grow; when the last byte is there only the index is left to write. A
layer that is built is the tar the build writes anyway, and its index. Removing one is two unlinks.

A layer is mounted once for all who use it, detached, when it is first asked for: its files are cached once, however
many containers run on it, as with directories. The runtime reaches that mount through our descriptor
(`Lower.mounted`) and mounts for itself if we are gone. A directory that `Overlay` made is used as it is, so a store
may hold both.

`missing` says why a kernel cannot do this: EROFS mounts files without a loop device since Linux 6.12, and overlayfs
takes detached mounts since 6.15.
"""

import errno
import os
import resource
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from kestrel.archive.compression import LayerReader
from kestrel.archive.diff import Diffed, diff
from kestrel.archive.entries import Entry, Source, TarReader
from kestrel.archive.erofs import top_of, write_index
from kestrel.archive.layertree import LayerTree
from kestrel.archive.threaded import ReadAhead
from kestrel.archive.writer import Linkable, Sink, TarWriter
from kestrel.base.db import Database
from kestrel.base.files import sync_directory
from kestrel.linux.mounts import open_layer, open_rootfs, opened
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.digest import Digest
from kestrel.snapshots.snapshotter import Usage
from kestrel.snapshots.stack import Hashing, Stack

_MOUNTS_KEPT: Final = 1024
"""Most layers that are kept mounted; the runtime mounts the others itself. Each holds one descriptor."""


class Erofs(Stack):
    """The snapshotter that does not unpack. Fulfils `Snapshotter`; `close` lets go of the mounts it keeps."""

    def __init__(self, root: Path, database: Database) -> None:
        self._mounted: dict[Digest, tuple[int, int]] = {}  # descriptor and device number
        self._mounting = threading.Lock()
        super().__init__(root, database)

    def close(self) -> None:
        """Let go of the mounts; what containers run on stays with them."""
        with self._mounting:
            for fd, _ in self._mounted.values():
                os.close(fd)
            self._mounted.clear()

    def layer_usage(self, diff_id: Digest) -> Usage:
        """Return the room the layer takes, and how much of it a blob of the content store is."""
        found = super().layer_usage(diff_id)
        try:
            status = os.stat(self._home(diff_id) / "tar")
        except FileNotFoundError:
            return found
        return replace(found, shared=status.st_blocks * 512 if status.st_nlink > 1 else 0)

    # -- making

    def _make(self, reader: LayerReader, new: Path, kept: "Path | None") -> int:
        tree = LayerTree()
        with ReadAhead(reader) as ahead:
            if kept is not None and not reader.compression and _linked(kept, new / "tar"):
                _grow(tree, ahead)
            else:
                with (new / "tar").open("xb", buffering=0) as file:
                    _grow(tree, _Tee(ahead, file.fileno()))
                    os.fchmod(file.fileno(), 0o444)
        return _index(tree, new)

    def _make_known(self, new: Path, kept: Path, members: Sequence[Entry]) -> "int | None":
        if not _linked(kept, new / "tar"):
            return None
        tree = LayerTree()
        for entry in members:
            tree.add(entry)
        return _index(tree, new)

    def _consume(self, upper: Path, sink: Hashing, new: Path, clamp: "int | None", users: range) -> tuple[Diffed, int]:
        tar = new / "tar"
        if isinstance(sink.sink, Linkable) and sink.sink.link(tar):
            written = diff(upper, sink, clamp=clamp, users=users)
        else:
            with tar.open("xb", buffering=0) as file:
                written = diff(upper, _Both(sink, file.fileno()), clamp=clamp, users=users)
                os.fchmod(file.fileno(), 0o444)
        tree = LayerTree()
        with tar.open("rb", buffering=0) as file:
            _grow(tree, file)
        return written, _index(tree, new)

    def _usable(self, home: Path) -> bool:
        return ((home / "tar").is_file() and (home / "index").is_file()) or (home / "fs").is_dir()

    def _sync(self, homes: "list[Path]") -> None:
        for home in homes:
            for name in ("tar", "index"):
                try:
                    fd = os.open(home / name, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                with opened(fd):
                    os.fsync(fd)
            sync_directory(home)
        if any((home / "fs").is_dir() for home in homes):
            os.sync()

    # -- mounting

    def _lower(self, diff_id: Digest) -> Lower:
        home = self._home(diff_id)
        if (home / "fs").is_dir():
            return Lower(path=str(home / "fs"))
        lower = Lower(kind="erofs", path=str(home / "index"), data=str(home / "tar"))
        with self._mounting:
            fd, device = self._mounted.get(diff_id, (-1, 0))
            if fd < 0:
                if len(self._mounted) >= _mounts_kept():
                    return lower
                fd = open_layer(lower)
                device = os.fstat(fd).st_dev
                self._mounted[diff_id] = (fd, device)
        return replace(lower, mounted=f"/proc/{os.getpid()}/fd/{fd}", device=device)

    def _forget(self, diff_id: Digest) -> None:
        with self._mounting:
            fd, _ = self._mounted.pop(diff_id, (-1, 0))
        if fd >= 0:
            os.close(fd)

    def _top_of(self, lower: Lower) -> tuple[int, int, int]:
        if lower.kind != "erofs":
            return super()._top_of(lower)
        return top_of(lower.path)


class _Tee:
    """Reads a source, and writes what comes to a file."""

    def __init__(self, source: Source, fd: int) -> None:
        self._source = source
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        _write(self._fd, piece)
        return piece


class _Both:
    """Writes to a sink and to a file."""

    def __init__(self, sink: Sink, fd: int) -> None:
        self._sink = sink
        self._fd = fd

    def write(self, data: "bytes | bytearray | memoryview", /) -> object:
        _write(self._fd, data)
        return self._sink.write(data)


def _write(fd: int, data: "bytes | bytearray | memoryview") -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _grow(tree: LayerTree, source: Source) -> None:
    for entry in TarReader(source):
        tree.add(entry)


def _index(tree: LayerTree, home: Path) -> int:
    """Write the index of the tar in `home`; returns the bytes of file data."""
    with (home / "tar").open("rb", buffering=0) as tar, (home / "index").open("xb", buffering=0) as index:
        write_index(tree.top, tar.fileno(), index.fileno())
        os.fchmod(index.fileno(), 0o444)
    return tree.stored


def _linked(kept: Path, target: Path) -> bool:
    """Give a blob of the content store a second name; False where that cannot be, and a copy is needed."""
    try:
        os.link(kept, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOENT):
            raise
        return False
    return True


def _mounts_kept() -> int:
    return min(_MOUNTS_KEPT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


def missing(root: Path) -> str:
    """Try all of it on the disk of `root`; returns why it cannot be done, or the empty string."""
    with tempfile.TemporaryDirectory(dir=root, prefix=".probe-") as name:
        try:
            return _tried(Path(name))
        except OSError as error:
            if error.errno == errno.ENOTBLK:
                return "this kernel does not mount EROFS from files, or not from files on this filesystem"
            return f"{error.strerror or error}"


def _tried(place: Path) -> str:
    content = b"probe" * 200
    with (place / "tar").open("wb") as file:
        tar = TarWriter(file)
        tar.add(Entry(name="file", size=len(content)), content)
        tar.add(Entry(name=".wh.gone"), b"")
        tar.close()
    tree = LayerTree()
    with (place / "tar").open("rb", buffering=0) as raw:
        _grow(tree, raw)
    _index(tree, place)
    for directory in ("below", "upper", "work"):
        (place / directory).mkdir()
    (place / "below" / "gone").touch()
    lower = Lower(kind="erofs", path=str(place / "index"), data=str(place / "tar"))
    with opened(open_layer(lower)) as fd:
        lower = replace(lower, mounted=f"/proc/{os.getpid()}/fd/{fd}", device=os.fstat(fd).st_dev)
        lowers = (lower, Lower(path=str(place / "below")))
        for plan in (
            Rootfs(lowers=(lower,)),
            Rootfs(lowers=lowers, upper=str(place / "upper"), work=str(place / "work")),
        ):
            with opened(open_rootfs(plan)) as root:
                if _read(root) != content:
                    return "files read through an index have other bytes"
                if plan.upper and os.path.exists(f"/proc/self/fd/{root}/gone"):
                    return "overlayfs shows what a layer took away"
    return ""


def _read(root: int) -> bytes:
    with open(os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root), "rb") as file:
        return file.read()
