"""An overlay upper directory as a changeset: the tar of a new layer (image-spec layer.md).

Only the upper directory is walked: overlayfs has put exactly the changes there. Its marks turn back into those of
a tar: a 0:0 character device `x` into the whiteout `.wh.x`, the opaque xattr into `.wh..wh..opq`. The output is a
function of the tree alone: names in byte order, a directory before what is in it, whole seconds, times clamped if
asked, no user names, overlayfs' own xattrs and the host's security labels left out. Sockets are not content and
are left out, as tar does.

A tree that overlayfs made with redirects or metadata-only copies cannot be read from the upper alone; we mount
without these, and a tree that has their xattrs is refused.
"""

import os
import stat
from dataclasses import dataclass
from typing import Final

from kestrel.archive.apply import OPAQUE, OPAQUE_XATTR, WHITEOUT
from kestrel.archive.entries import Entry, Kind, Source
from kestrel.archive.reproducible import clamped
from kestrel.archive.shift import inside, inside_xattr
from kestrel.archive.writer import Sink, TarWriter
from kestrel.base.errors import DataLoss, FailedPrecondition

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DEPTH_LIMIT: Final = 300
"""Each level costs a descriptor and a stack frame while it is open; real trees have a few dozen."""
_UNREADABLE: Final = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_KINDS: Final = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


@dataclass(frozen=True, slots=True)
class Diffed:
    """What was written: members of the tar, bytes of the tar."""

    entries: int
    size: int


def diff(
    upper: "str | os.PathLike[str] | int", sink: Sink, *, clamp: int | None = None, users: range = range(0)
) -> Diffed:
    """Write the changes in `upper` (a path or a descriptor) to `sink` as a plain tar.

    `clamp` is a time in nanoseconds; whatever is later is written as that. `users` are the host's numbers of those of
    the container that wrote it, when it had a user namespace; the tar has its own. Raises DataLoss when a file changes
    while it is read, FailedPrecondition for a tree this cannot read or that no layer can hold.
    """
    if isinstance(upper, int):
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper)
    else:
        top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        walk = _Walk(TarWriter(sink), clamp, users)
        walk.directory(top, "")
        return walk.finish()
    finally:
        os.close(top)


def unrepresentable(path: str) -> FailedPrecondition:
    """Make the error for a name that would hide another file instead of being there (layer.md "Whiteouts")."""
    return FailedPrecondition(
        f"`/{path}` cannot be in a layer: there a name that begins with .wh. says what was removed",
        hint="give it another name, or leave it out",
    )


class _Walk:
    def __init__(self, tar: TarWriter, clamp: int | None, users: range) -> None:
        self._tar = tar
        self._clamp = clamp
        self._users = users
        self._links: dict[tuple[int, int], str] = {}
        self._entries = 0

    def finish(self) -> Diffed:
        self._tar.close()
        return Diffed(self._entries, self._tar.size)

    def directory(self, fd: int, prefix: str) -> None:
        """Write what is in the directory, and below."""
        if prefix.count("/") > _DEPTH_LIMIT:
            raise FailedPrecondition(f"the tree is more than {_DEPTH_LIMIT} directories deep at {prefix[:60]!r}...")
        if prefix and _is_opaque(fd):
            self._add(Entry(name=prefix + OPAQUE, mode=0o644, mtime=self._time(os.fstat(fd))), b"")
        for name in sorted(os.listdir(fd), key=os.fsencode):
            if name.startswith(WHITEOUT):
                raise unrepresentable(prefix + name)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is Kind.CHARACTER and status.st_rdev == 0:
                self._add(Entry(name=f"{prefix}{WHITEOUT}{name}", mode=0o644, mtime=self._time(status)), b"")
            elif kind is Kind.DIRECTORY:
                self._subdirectory(fd, name, prefix + name, status)
            elif kind is Kind.FILE:
                self._file(fd, name, prefix + name, status)
            elif kind is not None:
                self._special(fd, name, prefix + name, status, kind)

    def _subdirectory(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self._add(self._entry(path, Kind.DIRECTORY, status, layer_xattrs(fd, path)), b"")
            self.directory(fd, path + "/")
        finally:
            os.close(fd)

    def _file(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        if self._linked(path, status):
            return
        with open(os.open(name, _FILE, dir_fd=parent), "rb", buffering=0) as file:
            entry = self._entry(path, Kind.FILE, status, layer_xattrs(file.fileno(), path))
            self._add(entry, file)
            if os.fstat(file.fileno()).st_size != status.st_size:
                raise DataLoss(f"{path!r} changed while it was read", hint="stop what writes to it first")

    def _special(self, parent: int, name: str, path: str, status: os.stat_result, kind: Kind) -> None:
        if self._linked(path, status):
            return
        link = os.readlink(name, dir_fd=parent) if kind is Kind.SYMLINK else ""
        xattrs = layer_xattrs(f"/proc/self/fd/{parent}/{name}", path)
        self._add(self._entry(path, kind, status, xattrs, link), b"")

    def _linked(self, path: str, status: os.stat_result) -> bool:
        """Write a hard link when the inode was written under another name before."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        self._add(self._entry(path, Kind.HARDLINK, status, {}, first), b"")
        return True

    def _entry(self, path: str, kind: Kind, status: os.stat_result, xattrs: dict[str, bytes], link: str = "") -> Entry:
        device = status.st_rdev if kind in (Kind.CHARACTER, Kind.BLOCK) else 0
        return Entry(
            name=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=inside(status.st_uid, self._users),
            gid=inside(status.st_gid, self._users),
            size=status.st_size if kind is Kind.FILE else 0,
            mtime=self._time(status),
            link=link,
            major=os.major(device),
            minor=os.minor(device),
            xattrs={name: inside_xattr(name, value, self._users) for name, value in xattrs.items()},
        )

    def _time(self, status: os.stat_result) -> int:
        return clamped(status.st_mtime_ns, self._clamp)

    def _add(self, entry: Entry, data: "bytes | Source") -> None:
        self._entries += 1
        self._tar.add(entry, data)


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def layer_xattrs(target: "int | str", path: str) -> dict[str, bytes]:
    """Return the xattrs that belong into an image: file capabilities, ACLs, user and trusted ones of no one else."""
    follow = isinstance(target, int)
    found = {}
    for name in os.listxattr(target, follow_symlinks=follow):
        if name in _UNREADABLE:
            raise FailedPrecondition(f"{path!r} was written by an overlay mount with {name.rpartition('.')[2]} on")
        if name == "security.capability" or not name.startswith(("trusted.overlay.", "user.overlay.", "security.")):
            found[name] = os.getxattr(target, name, follow_symlinks=follow)
    return found
