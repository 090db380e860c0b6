"""COPY and ADD straight into a layer: the tar is written as the files are read, and nothing is copied before.

What a writable root on the layers below would have become is worked out here: the directories on the way (with what
they are below, or new), the files, in the order and with the headers that `archive.diff` would have found in the
upper directory, so the same input has the same digest whichever way it went.

Of ten thousand small files most are not opened: what was read to find out the key is still in memory, and what did not
change since this place in the Dockerfile was built last is in the layer that was left then (`Donor`).

Archives to be unpacked are not for this: `compose` then says so, and the writable root does it.
"""

import hashlib
import mmap
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from kestrel.archive.apply import WHITEOUT
from kestrel.archive.diff import layer_xattrs, unrepresentable
from kestrel.archive.entries import BLOCK, Kind
from kestrel.archive.entries import Entry as Member
from kestrel.archive.writer import Sink, header
from kestrel.base.errors import Conflict, FailedPrecondition
from kestrel.build.copy import made_directory
from kestrel.build.digests import check_unchanged
from kestrel.build.gather import Gathering
from kestrel.build.graph import CopyFiles, Inline
from kestrel.build.leaks import Scan
from kestrel.build.ownership import Mode
from kestrel.build.tree import BLOCK as BLOCK_DEVICE
from kestrel.build.tree import CHARACTER, DIRECTORY, FIFO, FILE, LINK, Entry, Reader, Source, Tree, resolve
from kestrel.linux import mounts

_PIECE = 1 << 20
_DONATED = 1 << 24
"""Bytes of the largest file that is taken from an earlier layer: it is held in memory."""
_KINDS = {
    FILE: Kind.FILE,
    DIRECTORY: Kind.DIRECTORY,
    LINK: Kind.SYMLINK,
    CHARACTER: Kind.CHARACTER,
    BLOCK_DEVICE: Kind.BLOCK,
    FIFO: Kind.FIFO,
}


@dataclass(slots=True)
class Item:
    """What is going to be at a path. Times are in nanoseconds."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    link: str = ""
    device: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    data: bytes = b""
    origin: "tuple[_From, Entry] | None" = None


@dataclass(slots=True)
class _From:
    """A selection that files are read from, the digests of its files, and the bytes of some, by path."""

    tree: Tree
    source: Source
    reader: Reader
    digests: Mapping[str, bytes] = field(default_factory=dict)
    kept: Mapping[str, bytes] = field(default_factory=dict)


class Composer:
    """Works out the items of one operation. `below` is a descriptor of the root below, -1 when there is none."""

    def __init__(
        self, below: int, *, epoch: int, owner: tuple[int, int] | None = None, mode: Mode | None = None
    ) -> None:
        self._below = below
        self._time = epoch * 1_000_000_000
        self._owner = owner
        self._mode = mode
        self._names: dict[str, frozenset[str]] = {}
        self.items: dict[str, Item] = {}

    # What is below

    def _resolve(self, path: str) -> str:
        return resolve(self._below, path) if self._below >= 0 else posixpath.normpath("/" + path).strip("/")

    def _status(self, path: str) -> os.stat_result | None:
        """Look at a path below, going there only if the listing of its directory has it."""
        if self._below < 0:
            return None
        parent, name = posixpath.split(path)
        if name not in self._listing(parent):
            return None
        try:
            with mounts.opened(mounts.open_in_root(self._below, path, os.O_PATH | os.O_NOFOLLOW)) as fd:
                return os.fstat(fd)
        except OSError:
            return None

    def _listing(self, directory: str) -> frozenset[str]:
        known = self._names.get(directory)
        if known is not None:
            return known
        names: frozenset[str] = frozenset()
        parent, name = posixpath.split(directory)
        if not directory or name in self._listing(parent):
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY
                with mounts.opened(mounts.open_in_root(self._below, directory or ".", flags)) as fd:
                    names = frozenset(os.listdir(fd))
            except OSError:
                pass
        self._names[directory] = names
        return names

    def _is_directory(self, path: str) -> bool:
        item = self.items.get(path)
        if item is not None:
            return item.kind == DIRECTORY
        status = self._status(path) if path else None
        return not path or (status is not None and stat.S_ISDIR(status.st_mode))

    # Directories

    def directory(self, path: str) -> str:
        """Make sure of a directory and those above it; returns its real path."""
        real = self._resolve(path)
        walked = ""
        for name in real.split("/"):
            if not name:
                continue
            following = f"{walked}/{name}" if walked else name
            item = self.items.get(following)
            if item is None:
                self._make(following, walked)
            elif item.kind != DIRECTORY:
                raise self._in_the_way(following)
            walked = following
        self._touch(real)
        return real

    def _make(self, path: str, parent: str) -> None:
        status = self._status(path)
        if status is None:
            uid, gid = self._owner or (0, 0)
            self.items[path] = Item(DIRECTORY, made_directory(self._mode), uid, gid, self._time)
            self._touch(parent)
        elif stat.S_ISDIR(status.st_mode):
            self.items[path] = self._as_below(path, status)
        else:
            raise self._in_the_way(path)

    def _as_below(self, path: str, status: os.stat_result) -> Item:
        """A directory that comes up from below only because something in it changes keeps what it is."""
        with mounts.opened(mounts.open_in_root(self._below, path, os.O_RDONLY | os.O_DIRECTORY)) as fd:
            xattrs = tuple(layer_xattrs(fd, path).items())
        mtime = min(status.st_mtime_ns, self._time)
        return Item(DIRECTORY, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, mtime, xattrs=xattrs)

    def _touch(self, path: str) -> None:
        if path in self.items:
            self.items[path].mtime = self._time

    @staticmethod
    def _in_the_way(path: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"`/{path}` is a file, and a directory is needed there", hint="choose another destination"
        )

    # Files

    def place(self, origin: _From, destination: str, *, as_directory: bool) -> None:
        """Put a selection at an absolute destination."""
        source = origin.source
        if source.is_directory:
            top = self.directory(destination)
            for entry in source.entries[1:]:
                path = f"{top}/{entry.path}" if top else entry.path
                if entry.kind == DIRECTORY:
                    self._merge(path, entry)
                else:
                    self._put(path, self._item(entry, origin))
            return
        self._put(self._file_path(destination, source.name, as_directory), self._item(source.entries[0], origin))

    def inline(self, name: str, data: bytes, destination: str, *, as_directory: bool) -> None:
        """Put a file given as bytes."""
        uid, gid = self._owner or (0, 0)
        mode = 0o644 if self._mode is None else self._mode.apply(0o644, directory=False)
        item = Item(FILE, mode, uid, gid, self._time, size=len(data), data=data)
        self._put(self._file_path(destination, name, as_directory), item)

    def _file_path(self, destination: str, name: str, as_directory: bool) -> str:
        real = self._resolve(destination)
        if as_directory or self._is_directory(real):
            directory = self.directory(real)
        else:
            parent, name = posixpath.split(real)
            directory = self.directory(parent)
        return f"{directory}/{name}" if directory else name

    def _put(self, path: str, item: Item) -> None:
        before = self.items.get(path)
        status = self._status(path) if before is None else None
        if (before is not None and before.kind == DIRECTORY) or (status is not None and stat.S_ISDIR(status.st_mode)):
            raise FailedPrecondition(
                f"cannot copy a file over the directory `{posixpath.basename(path)}`",
                hint="remove the directory in a RUN before, or choose another destination",
            )
        self.items[path] = item
        self._touch(posixpath.dirname(path))

    def _merge(self, path: str, entry: Entry) -> None:
        before = self.items.get(path)
        status = self._status(path) if before is None else None
        if before is None and status is not None and stat.S_ISDIR(status.st_mode):
            before = self._as_below(path, status)
        if (before is not None and before.kind != DIRECTORY) or (before is None and status is not None):
            raise FailedPrecondition(
                f"cannot copy the directory `{entry.path}` over a file of that name",
                hint="remove it in a RUN before, or choose another destination",
            )
        made = self._item(entry, None)
        if before is not None:
            made = replace(made, xattrs=tuple({**dict(before.xattrs), **dict(made.xattrs)}.items()))
        self.items[path] = made
        self._touch(posixpath.dirname(path))

    def _item(self, entry: Entry, origin: "_From | None") -> Item:
        uid, gid = self._owner or (entry.uid, entry.gid)
        mode = entry.mode
        if entry.kind == LINK:
            mode = 0o777
        elif self._mode is not None:
            mode = self._mode.apply(mode, directory=entry.kind == DIRECTORY)
        return Item(
            entry.kind,
            mode,
            uid,
            gid,
            self._time,
            size=entry.size,
            link=entry.target,
            device=entry.device,
            xattrs=entry.xattrs,
            origin=None if origin is None else (origin, entry),
        )


class Donor:
    """The plain tar of an earlier layer: a member with the very same header is taken from it if its bytes are right."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._tar = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._members = self._list()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def content(self, head: bytes, size: int, digest: bytes) -> bytes | None:
        """Return the bytes behind a header, None when there are none with that digest."""
        at = self._members.get(head)
        if at is None:
            return None
        data = self._tar[at : at + size]
        return data if hashlib.sha256(data).digest() == digest else None

    def _list(self) -> dict[bytes, int]:
        """Find the small plain members; whatever else is there is stepped over, or ends the list."""
        found: dict[bytes, int] = {}
        at, tar, end = 0, self._tar, len(self._tar) - BLOCK
        while at <= end:
            head = tar[at : at + BLOCK]
            size = head[124:135]
            if head[257:262] != b"ustar" or not size.isdigit():
                break
            at += BLOCK
            length = int(size, 8)
            if 0 < length <= _DONATED:
                found[head] = at
            at += length + (-length % BLOCK)
        return found


class TarOf:
    """Writes items as the tar of a layer; `members` are what a reader of it would find.

    `scan` looks for keys in files that are not the donor's, which have been looked at.
    """

    def __init__(
        self, items: Mapping[str, Item], sink: Sink, donor: Donor | None = None, scan: Scan | None = None
    ) -> None:
        self._items = items
        self._scan = scan or Scan()
        self._sink = sink
        self._donor = donor
        self.members: list[Member] = []
        self._pending = bytearray()
        self._headers: dict[tuple[int, int, int, int], tuple[bytes, bytes, int] | None] = {}
        self._first: dict[tuple[int, int, int], str] = {}
        self.size = 0

    def write(self) -> None:
        """Write everything, in the order of names, each directory before what is in it."""
        for path in _in_order(self._items):
            self._add(path, self._items[path])
        self._take(bytes(2 * BLOCK))
        self._flush()

    def _add(self, path: str, item: Item) -> None:
        if item.kind == FILE and self._again(path, item):
            return
        if path.rpartition("/")[2].startswith(WHITEOUT):
            raise unrepresentable(path)
        head = self._header(path, item)
        self._take(head)
        self.members.append(self._member(path, item, offset=self.size))
        if item.kind == FILE and item.size:
            if item.origin is None:
                self._take(item.data)
                self._scan.file(f"/{path}").take(item.data)
            else:
                self._content(path, head, *item.origin)
            self._take(bytes(-item.size % BLOCK))

    def _again(self, path: str, item: Item) -> bool:
        """Write another name of a file that is there already as a link to it."""
        if item.origin is None or item.origin[1].links < 2:
            return False
        origin, entry = item.origin
        first = self._first.setdefault((id(origin.tree), *entry.inode), path)
        if first == path:
            return False
        link = replace(item, link=first, size=0, xattrs=())
        member = self._member(path, link, Kind.HARDLINK)
        self._take(header(member))
        self.members.append(member)
        return True

    @staticmethod
    def _member(path: str, item: Item, kind: Kind | None = None, offset: int = 0) -> Member:
        device = item.device if item.kind in (CHARACTER, BLOCK_DEVICE) else 0
        size = item.size if item.kind == FILE else 0
        return Member(
            name=path,
            kind=kind or _KINDS[item.kind],
            mode=item.mode,
            uid=item.uid,
            gid=item.gid,
            size=size,
            stored=size,
            offset=offset,
            mtime=item.mtime - item.mtime % 1_000_000_000,  # a header has no less
            link=item.link,
            major=os.major(device),
            minor=os.minor(device),
            xattrs=dict(item.xattrs),
        )

    def _header(self, path: str, item: Item) -> bytes:
        name = path.encode("utf-8", "surrogateescape")
        if item.kind != FILE or item.xattrs or len(name) > 100 or item.size >= 8**11 or not name.isascii():
            return header(self._member(path, item))
        key = (item.mode, item.uid, item.gid, item.mtime)
        if key not in self._headers:
            self._headers[key] = _template(self._member("", replace(item, size=0)))
        known = self._headers[key]
        if known is None:
            return header(self._member(path, item))
        middle, tail, total = known
        size = b"%011o\0" % item.size
        total += sum(name) + sum(size)
        return b"%s%s%s%s%06o\0 %s" % (name.ljust(100, b"\0"), middle[:24], size, middle[24:], total, tail)

    def _content(self, path: str, head: bytes, origin: _From, entry: Entry) -> None:
        data = origin.kept.get(entry.path)
        if data is not None:
            self._scan.file(f"/{path}").take(data)
        elif self._donor is not None and entry.path in origin.digests:
            data = self._donor.content(head, entry.size, origin.digests[entry.path])
            if data is not None and f"/{path}" in self._scan.before:
                self._scan.file(f"/{path}").take(data)
        if data is None:
            self._file(path, origin, entry)
        else:
            self._take(data)

    def _file(self, path: str, origin: _From, entry: Entry) -> None:
        look = self._scan.file(f"/{path}")
        fd = origin.reader.open(entry.path)
        try:
            if not origin.tree.owners:
                check_unchanged(fd, entry, origin.source)
            left = entry.size
            while left:
                piece = os.read(fd, min(left, _PIECE))
                if not piece:
                    raise Conflict(
                        f"`{posixpath.join(origin.source.path, entry.path)}` became shorter while it was read",
                        hint="build again when nothing writes to it",
                    )
                self._take(piece)
                look.take(piece)
                left -= len(piece)
        finally:
            os.close(fd)

    def _take(self, data: bytes) -> None:
        self._pending += data
        self.size += len(data)
        if len(self._pending) >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        self._sink.write(self._pending)
        self._pending = bytearray()


def _template(member: Member) -> tuple[bytes, bytes, int] | None:
    """Return what headers of like files share: mode to group and time, the end, and the sum without name and size.

    None where an owner or a time is more than its field can say: such headers begin with pax records.
    """
    block = header(member)
    if len(block) != BLOCK:
        return None
    middle, tail = block[100:124] + block[136:148], block[156:]
    return middle, tail, sum(middle) + sum(tail) + 8 * 0x20


def _in_order(items: Mapping[str, Item]) -> Iterator[str]:
    """Yield paths depth first, names in byte order: a slash sorts before every other byte of a name."""
    if all(path.isascii() for path in items):
        return iter(sorted(items, key=lambda path: path.replace("/", "\0")))
    return iter(sorted(items, key=lambda path: os.fsencode(path).replace(b"/", b"\0")))


def compose(
    operation: CopyFiles,
    below: int,
    gatherings: Mapping[int, Gathering],
    epoch: int,
    *,
    owner: tuple[int, int] | None,
    mode: Mode | None,
    is_archive: Callable[[Reader], bool],
    stack: ExitStack,
) -> dict[str, Item] | None:
    """Work out what an operation leaves; None when an archive has to be unpacked. Readers stay open in `stack`."""
    composer = Composer(below, epoch=epoch, owner=owner, mode=mode)
    for number, selection in enumerate(operation.selections):
        if isinstance(selection.origin, Inline):
            for name, text in selection.origin.files:
                data = text.encode("utf-8", "surrogateescape")
                composer.inline(name, data, operation.destination, as_directory=operation.as_directory)
            continue
        tree, sources = gatherings[number].sources()
        for which, source in enumerate(sources):
            reader = stack.enter_context(tree.opened(source))
            if selection.unpack and source.entries[0].kind == FILE and is_archive(reader):
                return None
            origin = _From(tree, source, reader, *gatherings[number].contents(which))
            composer.place(origin, operation.destination, as_directory=operation.as_directory)
    return composer.items
