"""A file tree in memory: names and attributes here, contents still in the packages' tars.

Packages are laid over each other, made-up files are added, and the result is written as one tar in which nothing
depends on when or where it was made: names sorted, owners as numbers, no time newer than the newest packaged file. A
second tree can be written as the difference to a first one; that is how images share their lower layers.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO, cast

from kestrel.base.errors import DataLoss

# Directories that are links into /usr on every Debian since 12 (https://wiki.debian.org/UsrMerge).
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name. `kind` is a tar type; contents are `data`, or `size` bytes at `offset` of the tar `origin`.

    `real` is the name under which a hard link's contents are found.
    """

    kind: bytes
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: str = ""
    real: str = ""
    data: bytes = b""
    origin: Path | None = None
    offset: int = 0
    size: int = 0


def normal(name: str) -> str:
    """Return a packaged name as it is in the image: relative, without dots, /usr-merged.

    Raises DataLoss for a name that leaves the root.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise DataLoss(f"a package holds a path that leaves the root: {name!r}")
    if parts and parts[0] in _MERGED:
        parts.insert(0, "usr")
    return "/".join(parts)


class Tree:
    """Entries by name, without leading slash; the root itself is not among them."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.newest = 0
        self._aliases: set[str] = set()

    def lay(self, data: Path, excluded: "Iterable[str]" = ()) -> list[str]:
        """Lay the files of a package's plain tar over the tree; returns its names as packaged, in order.

        Names below `excluded` prefixes are left out, as dpkg's path-exclude does; a prefix keeps its directory.
        """
        listed = []
        prefixes = tuple(excluded)
        with tarfile.open(data, "r:", encoding="utf-8", errors="surrogateescape") as tar:
            for info in tar:
                listed.append("/" + info.name.removeprefix("./").strip("/"))
                name = normal(info.name)
                self._note_alias(info.name)
                if name and not (name.startswith(prefixes) and not name.endswith("/copyright") and not info.isdir()):
                    self._put(name, info, data)
        return listed

    def _note_alias(self, name: str) -> None:
        first = name.removeprefix("./").split("/", 1)[0]
        if first in _MERGED:
            self._aliases.add(first)

    def _put(self, name: str, info: tarfile.TarInfo, origin: Path) -> None:
        if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            return  # device nodes are the runtime's to make
        if name.split("/")[0] in _MERGED or (info.issym() and self._is_alias_link(name)):
            return
        old = self.entries.get(name)
        if old and info.isdir() and old.kind == tarfile.DIRTYPE:
            return  # the first package that ships a directory says how it looks, as with dpkg
        if old and info.issym():
            return  # /bin/x and its old compatibility link /usr/bin/x are one name now; the file wins
        self.newest = max(self.newest, int(info.mtime))
        self.entries[name] = Entry(
            kind=tarfile.REGTYPE if info.isreg() else info.type,
            mode=info.mode & 0o7777,
            uid=info.uid,
            gid=info.gid,
            mtime=int(info.mtime),
            link=info.linkname if info.issym() else "",
            real=normal(info.linkname) if info.islnk() else "",
            origin=origin,
            offset=info.offset_data,
            size=info.size if info.isreg() else 0,
        )

    @staticmethod
    def _is_alias_link(name: str) -> bool:
        # base-files of Debian 13 ships /bin -> usr/bin itself; `normal` turned that into usr/bin.
        return name.startswith("usr/") and name[4:] in _MERGED

    def aliases(self) -> list[str]:
        """Return the top-level names that must be links into /usr."""
        return sorted(self._aliases | {"bin", "sbin", "lib"})

    def file(self, name: str, data: "bytes | str", *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Add a file that no package holds, and its directories; it gets the newest packaged time when written."""
        content = data.encode() if isinstance(data, str) else data
        self._make_parents(name)
        self.entries[name] = Entry(
            kind=tarfile.REGTYPE, mode=mode, uid=uid, gid=gid, mtime=-1, data=content, size=len(content)
        )

    def directory(self, name: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Add a directory unless something has the name."""
        if name not in self.entries:
            self._make_parents(name)
            self.entries[name] = Entry(kind=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid, mtime=-1)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link, in place of what has the name."""
        self._make_parents(name)
        self.entries[name] = Entry(kind=tarfile.SYMTYPE, mode=0o777, mtime=-1, link=target)

    def remove(self, name: str) -> None:
        """Take one name out; fine when it is not there."""
        self.entries.pop(name, None)

    def _make_parents(self, name: str) -> None:
        parent = name.rpartition("/")[0]
        if parent:
            self.directory(parent)

    def read(self, name: str) -> bytes | None:
        """Return a file's contents, following symbolic links inside the tree; None when there is no such file."""
        for _ in range(8):
            entry = self.entries.get(name)
            if entry is None:
                return None
            if entry.kind == tarfile.REGTYPE:
                return _contents(entry)
            if entry.kind == tarfile.LNKTYPE:
                name = entry.real
            elif entry.kind == tarfile.SYMTYPE:
                base = "" if entry.link.startswith("/") else name.rpartition("/")[0]
                name = normal(_collapse(f"{base}/{entry.link}"))
            else:
                return None
        return None

    def beneath(self, directory: str) -> Iterator[str]:
        """Yield the names below a directory, sorted."""
        yield from sorted(name for name in self.entries if name.startswith(directory + "/"))

    def complete(self) -> None:
        """Make directories that are only implied, and the links of the merged /usr."""
        for name in list(self.entries):
            self._make_parents(name)
        for name in self.aliases():
            self.directory(f"usr/{name}")
            self.symlink(name, f"usr/{name}")

    def write(self, path: Path, below: "Tree | None" = None) -> tuple[str, int]:
        """Write the tree, or its difference to the tree below it, as a tar; returns its sha256 digest and size.

        What `below` has and this tree lacks becomes a whiteout (image-spec layer.md).
        """
        chosen = self._difference(below) if below else dict(self.entries)
        with path.open("wb") as raw, ExitStack() as stack:
            sink = _Hashing(raw)
            tar = stack.enter_context(
                tarfile.open(
                    fileobj=cast("IO[bytes]", sink),
                    mode="w|",
                    format=tarfile.PAX_FORMAT,
                    encoding="utf-8",
                    errors="surrogateescape",
                )
            )
            _write_entries(tar, chosen, self.newest, stack)
            tar.close()
            return f"sha256:{sink.hash.hexdigest()}", sink.size

    def _difference(self, below: "Tree") -> dict[str, Entry]:
        changed = {n: e for n, e in self.entries.items() if not _same(e, below.entries.get(n))}
        # A hard link's other names come along: a link cannot reach into the layer below.
        for entry in list(changed.values()):
            if entry.real and entry.real not in changed:
                changed[entry.real] = self.entries[entry.real]
        for name in below.entries:
            if name not in self.entries and name.rpartition("/")[0] in self.entries:
                parent, _, last = name.rpartition("/")
                changed[f"{parent}/.wh.{last}".lstrip("/")] = Entry(kind=tarfile.REGTYPE, mode=0o644, mtime=-1)
        for name in list(changed):
            while name := name.rpartition("/")[0]:
                changed[name] = self.entries[name]
        return changed


def _same(entry: Entry, other: Entry | None) -> bool:
    if other is None:
        return False
    # Packages lie unpacked at the same place for every tree of one bootstrap, so `origin` and `offset` compare.
    return entry == other


def _collapse(path: str) -> str:
    out: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del out[-1:]
        elif part not in ("", "."):
            out.append(part)
    return "/".join(out)


def _contents(entry: Entry) -> bytes:
    if entry.origin is None:
        return entry.data
    with entry.origin.open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.size)


class _Hashing:
    """A file that hashes and counts what goes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._file.write(data)


def _write_entries(tar: tarfile.TarFile, entries: dict[str, Entry], newest: int, stack: ExitStack) -> None:
    opened: dict[Path, BinaryIO] = {}
    written: dict[str, str] = {}  # where contents are -> the first name they were written under
    for name in sorted(entries):
        entry = entries[name]
        info = tarfile.TarInfo(name + ("/" if entry.kind == tarfile.DIRTYPE else ""))
        content = entry
        if entry.kind == tarfile.LNKTYPE:
            content = replace(entries[entry.real], real=entry.real)
        key = content.real or name
        info.type = entry.kind if entry.kind != tarfile.LNKTYPE else tarfile.REGTYPE
        info.mode, info.uid, info.gid = content.mode, content.uid, content.gid
        info.mtime = newest if content.mtime < 0 else min(content.mtime, newest)
        info.linkname = entry.link
        if info.type == tarfile.REGTYPE and key in written:
            info.type, info.linkname = tarfile.LNKTYPE, written[key]
        if info.type != tarfile.REGTYPE:
            tar.addfile(info)
            continue
        written[key] = name
        info.size = content.size
        tar.addfile(info, _stream(content, opened, stack))


def _stream(entry: Entry, opened: dict[Path, BinaryIO], stack: ExitStack) -> BinaryIO:
    if entry.origin is None:
        return io.BytesIO(entry.data)
    file = opened.get(entry.origin)
    if file is None:
        file = opened[entry.origin] = stack.enter_context(entry.origin.open("rb"))
    file.seek(entry.offset)
    return file
