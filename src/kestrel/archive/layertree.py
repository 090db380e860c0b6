"""The tree that a layer's tar stands for, made in memory: what unpacking it would leave, without unpacking it.

Entry by entry this does what `archive.apply` does on disk, by the same rules: a parent that is a symbolic link
resolves inside the root, the last entry of a name wins, whiteouts and opaque markers take overlayfs' form, what is
hostile is refused with the same words. There is no filesystem under it, so nothing can be followed out of one; what
the kernel would answer (ENOENT, ELOOP, ENAMETOOLONG, and how an ACL changes a mode) is answered here.

Files keep where their bytes are in the tar. `archive.erofs` writes such a tree as an index that the kernel mounts.
"""

import errno
import os
import stat
import struct
from typing import Final

from kestrel.archive.apply import (
    CAPABILITY,
    MAJOR_LIMIT,
    MINOR_LIMIT,
    OPAQUE,
    OPAQUE_XATTR,
    RESERVED,
    WHITEOUT,
    wanted_xattrs,
)
from kestrel.archive.entries import Entry, Kind
from kestrel.base.errors import InvalidArgument

NAME_MAX: Final = 255
PATH_MAX: Final = 4096
_LINKS_FOLLOWED: Final = 40
"""What the kernel allows in one lookup (include/linux/namei.h, MAXSYMLINKS)."""
_TYPES: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
_ACCESS: Final = "system.posix_acl_access"
_DEFAULT: Final = "system.posix_acl_default"


class Inode:
    """One file of any type. `children` is None unless it is a directory, `offset` where a file's bytes begin."""

    __slots__ = (
        "children",
        "device",
        "gid",
        "link",
        "links",
        "mode",
        "mtime",
        "nid",
        "offset",
        "parent",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime: int = 0) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.size = 0
        self.offset = 0
        self.sparse: tuple[tuple[int, int], ...] | None = None
        self.link = ""
        self.device = 0
        self.xattrs: dict[str, bytes] | None = None
        self.children: dict[str, Inode] | None = None
        self.parent: Inode | None = None
        self.links = 0
        self.nid = 0

    @property
    def is_whiteout(self) -> bool:
        """Whether overlayfs takes it for "nothing here"."""
        return self.device == 0 and stat.S_ISCHR(self.mode)

    def set_xattr(self, name: str, value: bytes) -> None:
        """Set one."""
        if self.xattrs is None:
            self.xattrs = {}
        self.xattrs[name] = value


class LayerTree:
    """Grows with each entry `add` is given, in the order of the tar; `top` is the root directory."""

    def __init__(self) -> None:
        self.top = Inode(stat.S_IFDIR | 0o755)
        self.top.children = {}
        self.top.parent = self.top
        self.entries = 0
        self.stored = 0
        self._directories: dict[str, Inode] = {"": self.top}
        self._mtime = 0

    def add(self, entry: Entry) -> None:
        """Take in one entry. Raises InvalidArgument for what cannot be meant well."""
        if not self.entries:
            self.top.mtime = entry.mtime
        self.entries += 1
        self.stored += entry.stored
        self._mtime = entry.mtime  # of directories that no entry makes: one that is the same on every machine
        try:
            self._one(entry)
        except OSError as error:
            raise InvalidArgument(
                f"archive entry {entry.name[:300]!r} cannot be unpacked: {os.strerror(error.errno or 0)}"
            ) from error

    def _one(self, entry: Entry) -> None:
        name = entry.name
        head, _, last = name.rpartition("/")
        if WHITEOUT in name and self._special(name, head, last):
            return
        if not name:
            self._top(entry)
            return
        directory = self._directories.get(head) or self._parent(head)
        if len(last) * 4 > NAME_MAX and len(_encoded(last)) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, name)
        kind = entry.kind
        if kind is Kind.FILE:
            self._file(entry, directory, last)
        elif kind is Kind.DIRECTORY:
            self._directory(entry, directory, last)
        elif kind is Kind.SYMLINK:
            self._symlink(entry, directory, last)
        elif kind is Kind.HARDLINK:
            self._hardlink(entry, directory, last)
        else:
            self._node(entry, directory, last)

    # -- whiteouts

    def _special(self, name: str, head: str, last: str) -> bool:
        """Do what a name with `.wh.` in it asks for; returns whether that was all."""
        for part in head.split("/"):
            if part.startswith(RESERVED):
                return True
            if part.startswith(WHITEOUT):
                raise InvalidArgument(f"layer entry {name!r} lies beneath a whiteout")
        if not last.startswith(WHITEOUT):
            return False
        if last == OPAQUE:
            self._parent(head).set_xattr(OPAQUE_XATTR, b"y")
        elif not last.startswith(RESERVED):
            self._whiteout(name, self._parent(head), last.removeprefix(WHITEOUT))
        return True

    def _whiteout(self, name: str, directory: Inode, hidden: str) -> None:
        if hidden in ("", ".", ".."):
            raise InvalidArgument(f"layer entry {name!r} is a whiteout of nothing")
        if len(_encoded(hidden)) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, name)
        there = _inside(directory).get(hidden)
        if there is None:
            _inside(directory)[hidden] = Inode(stat.S_IFCHR, mtime=self._mtime)
        elif there.children is not None:
            there.set_xattr(OPAQUE_XATTR, b"y")

    # -- one method for each kind of entry

    def _top(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise InvalidArgument(f"the root of a layer cannot be a {entry.kind.value}")
        self._attributes(self.top, entry)

    def _file(self, entry: Entry, directory: Inode, last: str) -> None:
        made = Inode(stat.S_IFREG | entry.mode, entry.uid, entry.gid, entry.mtime)
        made.size = entry.size
        made.offset = entry.offset
        made.sparse = entry.sparse
        if entry.xattrs:
            _set_xattrs(made, entry)
        self._put(directory, last, made)

    def _directory(self, entry: Entry, directory: Inode, last: str) -> None:
        there = _inside(directory).get(last)
        if there is None or there.children is None:
            fresh = self._made(directory, last)
            if there is not None and there.is_whiteout:
                fresh.set_xattr(OPAQUE_XATTR, b"y")
            there = fresh
        self._attributes(there, entry)
        self._directories[entry.name] = there

    def _symlink(self, entry: Entry, directory: Inode, last: str) -> None:
        if len(_encoded(entry.link)) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, entry.name)
        made = Inode(stat.S_IFLNK | 0o777, entry.uid, entry.gid, entry.mtime)
        made.link = entry.link
        if entry.xattrs:
            _set_xattrs(made, entry)
        self._put(directory, last, made)

    def _hardlink(self, entry: Entry, directory: Inode, last: str) -> None:
        head, _, base = entry.link.rpartition("/")
        try:
            source = self._lookup(head)
            target = _inside(source).get(base)
        except FileNotFoundError:
            target = None
        if target is not None and (target.children is not None or target.is_whiteout):
            raise InvalidArgument(f"hard link {entry.name!r} points to {entry.link!r}, which is no file")
        there = _inside(directory).get(last)
        if target is not None and there is target:
            return
        if target is None or (there is not None and there.children is not None and _is_below(source, there)):
            raise InvalidArgument(f"hard link {entry.name!r} points to {entry.link!r}, which this archive did not make")
        self._put(directory, last, target)

    def _node(self, entry: Entry, directory: Inode, last: str) -> None:
        made = Inode(_TYPES[entry.kind] | entry.mode, entry.uid, entry.gid, entry.mtime)
        if entry.kind is not Kind.FIFO:
            if not (entry.major < MAJOR_LIMIT and entry.minor < MINOR_LIMIT):
                raise OSError(errno.EINVAL, entry.name)
            made.device = (entry.minor & 0xFF) | entry.major << 8 | (entry.minor & ~0xFF) << 12
            if entry.kind is Kind.CHARACTER and made.device == 0:
                raise InvalidArgument(
                    f"layer entry {entry.name!r} is device 0:0, which overlayfs would take as a whiteout"
                )
        if entry.xattrs:
            _set_xattrs(made, entry)
        self._put(directory, last, made)

    # -- the tree

    def _attributes(self, inode: Inode, entry: Entry) -> None:
        inode.mode = stat.S_IFDIR | entry.mode
        inode.uid = entry.uid
        inode.gid = entry.gid
        inode.mtime = entry.mtime
        if entry.xattrs:
            _set_xattrs(inode, entry)

    def _put(self, directory: Inode, last: str, made: Inode) -> None:
        children = _inside(directory)
        there = children.get(last)
        children[last] = made
        if there is not None and (there.children is not None or there.link):
            # Names may lead elsewhere now.
            self._directories = {"": self.top}

    def _made(self, directory: Inode, last: str) -> Inode:
        made = Inode(stat.S_IFDIR | 0o755, mtime=self._mtime)
        made.children = {}
        made.parent = directory
        self._put(directory, last, made)
        return made

    def _parent(self, name: str) -> Inode:
        """Return the directory `name`, making what is missing of it."""
        found = self._directories.get(name)
        if found is None:
            found = self._make(name)
            self._directories[name] = found
        return found

    def _make(self, name: str) -> Inode:
        try:
            return self._lookup(name)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            self._unwhiteout(name)
        head, _, last = name.rpartition("/")
        directory = self._parent(head)
        if last in _inside(directory):
            return self._lookup(name)
        return self._made(directory, last)

    def _unwhiteout(self, name: str) -> None:
        """Put an opaque directory where a whiteout stands and a directory is needed: both were said."""
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            directory = self._parent("/".join(parts[: count - 1]))
            there = _inside(directory).get(parts[count - 1])
            if there is not None and there.is_whiteout:
                self._made(directory, parts[count - 1]).set_xattr(OPAQUE_XATTR, b"y")
                return

    def _lookup(self, name: str) -> Inode:
        """Find a directory as openat2(2) with RESOLVE_IN_ROOT and O_DIRECTORY does; raises OSError."""
        if len(_encoded(name)) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, name)
        at, followed = self.top, 0
        waiting = name.split("/")[::-1]
        while waiting:
            part = waiting.pop()
            children = at.children
            if children is None:
                raise OSError(errno.ENOTDIR, name)
            if part in ("", "."):
                continue
            if part == "..":
                at = at.parent or self.top
                continue
            if len(_encoded(part)) > NAME_MAX:
                raise OSError(errno.ENAMETOOLONG, name)
            there = children.get(part)
            if there is None:
                raise OSError(errno.ENOENT, name)
            if there.link:
                followed += 1
                if followed > _LINKS_FOLLOWED:
                    raise OSError(errno.ELOOP, name)
                if there.link[0] == "/":
                    at = self.top
                waiting += there.link.split("/")[::-1]
            else:
                at = there
        if at.children is None:
            raise OSError(errno.ENOTDIR, name)
        return at


def _inside(directory: Inode) -> "dict[str, Inode]":
    if directory.children is None:
        raise OSError(errno.ENOTDIR, "not a directory")
    return directory.children


def _is_below(inode: Inode, top: Inode) -> bool:
    at: Inode | None = inode
    while at is not None:
        if at is top:
            return True
        at = at.parent if at.parent is not at else None
    return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# -- xattrs, as the kernel takes them (`man 7 xattr`, fs/xattr.c)


def _set_xattrs(inode: Inode, entry: Entry) -> None:
    for name, value in wanted_xattrs(entry):
        namespace, _, rest = name.partition(".")
        if name == _ACCESS:
            _set_acl(inode, value)
        elif name == _DEFAULT:
            if inode.children is not None and _acl(value):
                inode.set_xattr(name, value)
        elif rest and (
            name == CAPABILITY
            or namespace == "trusted"
            or (namespace == "user" and stat.S_IFMT(inode.mode) in _USER_TYPES)
        ):
            inode.set_xattr(name, value)


_USER_TYPES: Final = (stat.S_IFREG, stat.S_IFDIR)


_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


def _acl(value: bytes) -> "list[tuple[int, int, int]] | None":
    """Read an ACL (include/uapi/linux/posix_acl_xattr.h); None for one the kernel would refuse."""
    if len(value) < 4 or len(value) % 8 != 4 or value[:4] != b"\x02\0\0\0":
        return None
    entries = list(struct.iter_unpack("<HHI", value[4:]))
    tags = [tag for tag, _, _ in entries]
    named = _USER in tags or _GROUP in tags
    well = (
        all(tags.count(tag) == 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER))
        and tags.count(_MASK) <= 1
        and (_MASK in tags or not named)
        and tags == sorted(tags)
        and all(permission <= 7 for _, permission, _ in entries)
        and set(tags) <= {_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER}
    )
    return entries if well else None


def _set_acl(inode: Inode, value: bytes) -> None:
    """Set an access ACL: it decides the mode, and one that says no more than a mode is not kept (posix_acl.c)."""
    entries = _acl(value)
    if not entries or stat.S_ISLNK(inode.mode):
        return
    bits = {tag: permission for tag, permission, _ in entries if tag not in (_USER, _GROUP)}
    group = bits.get(_MASK, bits[_GROUP_OBJ])
    inode.mode = inode.mode & ~0o777 | bits[_USER_OBJ] << 6 | group << 3 | bits[_OTHER]
    if len(entries) > 3:
        inode.set_xattr(_ACCESS, value)
    elif inode.xattrs:
        inode.xattrs.pop(_ACCESS, None)
