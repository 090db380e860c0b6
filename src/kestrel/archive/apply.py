"""Unpacks a tar beneath a directory, every path resolved inside it by descriptor.

Two uses. A layer (`form=OVERLAY`) becomes a directory that overlayfs stacks: a whiteout `.wh.x` becomes a 0:0
character device `x`, an opaque marker `.wh..wh..opq` the xattr `trusted.overlay.opaque` on its directory
(image-spec layer.md "Whiteouts", kernel Documentation/filesystems/overlayfs.rst). An archive that is only files
(`form=PLAIN`, what ADD unpacks) is taken as it is.

The rules a hostile tar meets: a parent is opened with openat2 RESOLVE_IN_ROOT, so a symbolic link on the way
resolves inside the root, as for a process that has it as its root; the last part is created with O_EXCL and never
followed; a hard link's target is looked up the same way; names that overlayfs or aufs reserve, and xattrs that speak
to overlayfs, do not get through. An entry replaces what an earlier one of the same tar left in its place.

Directories get their times last, since filling them changes these. Owners come before modes and modes before
file capabilities: the kernel clears the latter on the former (`man 2 chown`).
"""

import enum
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kestrel.archive.disk import disk_errors
from kestrel.archive.entries import Entry, Kind, Source, TarReader
from kestrel.archive.trees import remove_tree
from kestrel.base.errors import InvalidArgument
from kestrel.linux import abi, syscalls

WHITEOUT: Final = ".wh."
RESERVED: Final = ".wh..wh."
OPAQUE: Final = ".wh..wh..opq"
OPAQUE_XATTR: Final = "trusted.overlay.opaque"
_DROPPED_XATTRS: Final = ("trusted.overlay.", "user.overlay.", "security.")
CAPABILITY: Final = "security.capability"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_ROOT: Final = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
_FRESH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MAJOR_LIMIT: Final = 1 << 12
MINOR_LIMIT: Final = 1 << 20
"""Device numbers are below these (include/linux/kdev_t.h)."""
_XATTR_NAME_MAX: Final = 255
_XATTR_MAX: Final = 65535
"""What the kernel takes is one more (XATTR_SIZE_MAX), which an EROFS index cannot say."""
_OPEN_DIRECTORIES: Final = 128
_HOSTILE: Final = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EXDEV,
    errno.EINVAL,
    errno.EISDIR,
)


class Form(enum.Enum):
    """What a name that begins with `.wh.` means."""

    OVERLAY = "overlay"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Applied:
    """What was made: entries of the tar, and bytes of file data."""

    entries: int
    size: int


def apply(
    source: Source,
    root: "str | os.PathLike[str] | int",
    *,
    form: Form = Form.OVERLAY,
    owner: tuple[int, int] | None = None,
) -> Applied:
    """Unpack the tar stream into the directory `root`, a path or a descriptor of it.

    With `owner` everything belongs to that (uid, gid) instead of who the tar says. The source is read to its end.
    Raises InvalidArgument for a tar that cannot be meant well, DataLoss for one that ends too early,
    ResourceExhausted when the disk is full; what was unpacked until then stays for the caller to remove.
    """
    if isinstance(root, int):
        place, top = "the mounted root", os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    else:
        place, top = os.fspath(root), os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = _Tree(top)
    try:
        with disk_errors(place):
            return _Applier(tree, TarReader(source), form, owner).run()
    finally:
        tree.close()


class _Tree:
    """The directory being filled; keeps its recently used directories open, by name."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._open: dict[str, int] = {}
        self._retired: list[int] = []

    def parent(self, name: str) -> int:
        """Return a descriptor of the directory `name` (empty for the top), making what is missing of it."""
        if not name:
            return self.top
        fd = self._open.get(name)
        if fd is None:
            fd = self._make(name)
            self.keep(name, fd)
        return fd

    def keep(self, name: str, fd: int) -> None:
        """Remember an open directory."""
        if len(self._open) >= _OPEN_DIRECTORIES:
            os.close(self._open.pop(next(iter(self._open))))
        old = self._open.get(name)
        if old is not None:
            os.close(old)
        self._open[name] = fd

    def forget(self) -> None:
        """A directory or a link went away, so names may lead elsewhere now.

        The caller may still hold one of these descriptors; they are closed by the next `settle`.
        """
        self._retired += self._open.values()
        self._open.clear()

    def settle(self) -> None:
        """Close what was forgotten; nobody holds it between two entries."""
        for fd in self._retired:
            os.close(fd)
        self._retired.clear()

    def close(self) -> None:
        """Close everything."""
        self.forget()
        self.settle()
        os.close(self.top)

    def lookup(self, name: str) -> int:
        """Open an existing directory as a process rooted here would; raises OSError."""
        if not name:
            return os.dup(self.top)
        return syscalls.openat2(self.top, name, os.O_RDONLY | os.O_DIRECTORY, _IN_ROOT)

    def _make(self, name: str) -> int:
        try:
            return self.lookup(name)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            self._unwhiteout(name)
        head, _, last = name.rpartition("/")
        directory = self.parent(head)
        try:
            os.mkdir(last, 0o755, dir_fd=directory)
            fd = os.open(last, _DIRECTORY, dir_fd=directory)
        except FileExistsError:
            return self.lookup(name)
        os.fchown(fd, os.geteuid(), os.getegid())  # mkdir heeds a setgid parent, and the umask
        os.fchmod(fd, 0o755)
        return fd

    def _unwhiteout(self, name: str) -> None:
        """Take away a whiteout that stands where a directory is needed, leaving an opaque directory: both were said."""
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            directory = self.parent("/".join(parts[: count - 1]))
            if is_whiteout(directory, parts[count - 1]):
                os.unlink(parts[count - 1], dir_fd=directory)
                os.mkdir(parts[count - 1], 0o755, dir_fd=directory)
                fd = os.open(parts[count - 1], _DIRECTORY, dir_fd=directory)
                os.setxattr(fd, OPAQUE_XATTR, b"y")
                self.keep("/".join(parts[:count]), fd)
                return


class _Applier:
    def __init__(self, tree: _Tree, tar: TarReader, form: Form, owner: tuple[int, int] | None) -> None:
        self._tree = tree
        self._tar = tar
        self._overlay = form is Form.OVERLAY
        self._owner = owner
        self._times: dict[str, int] = {}
        self._make = {
            Kind.FILE: self._file,
            Kind.DIRECTORY: self._directory,
            Kind.SYMLINK: self._symlink,
            Kind.HARDLINK: self._hardlink,
            Kind.CHARACTER: self._node,
            Kind.BLOCK: self._node,
            Kind.FIFO: self._node,
        }

    def run(self) -> Applied:
        entries = size = 0
        for entry in self._tar:
            entries += 1
            size += entry.stored
            self._tree.settle()
            try:
                self._one(entry)
            except OSError as error:
                raise self._explained(error, entry) from error
        for name, mtime in sorted(self._times.items()):
            self._set_directory_time(name, mtime)
        return Applied(entries, size)

    def _one(self, entry: Entry) -> None:
        head, _, last = entry.name.rpartition("/")
        if self._overlay and WHITEOUT in entry.name and self._special(entry, head, last):
            return
        if not entry.name:
            self._top(entry)
            return
        self._make[entry.kind](entry, self._tree.parent(head), last)

    # -- whiteouts

    def _special(self, entry: Entry, head: str, last: str) -> bool:
        """Do what a name with `.wh.` in it asks for; returns whether that was all."""
        name = entry.name
        for part in head.split("/"):
            if part.startswith(RESERVED):
                return True  # what aufs kept for itself, such as .wh..wh.plnk/
            if part.startswith(WHITEOUT):
                raise InvalidArgument(f"layer entry {name!r} lies beneath a whiteout")
        if not last.startswith(WHITEOUT):
            return False
        if last == OPAQUE:
            os.setxattr(self._tree.parent(head), OPAQUE_XATTR, b"y")
        elif not last.startswith(RESERVED):
            self._whiteout(entry, self._tree.parent(head), last.removeprefix(WHITEOUT))
        return True

    def _whiteout(self, entry: Entry, directory: int, hidden: str) -> None:
        """Hide what lower layers have. What this same layer made under the name stays (layer.md "Whiteouts")."""
        if hidden in ("", ".", ".."):
            raise InvalidArgument(f"layer entry {entry.name!r} is a whiteout of nothing")
        try:
            os.mknod(hidden, stat.S_IFCHR | 0o000, os.makedev(0, 0), dir_fd=directory)
            os.utime(hidden, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(hidden, dir_fd=directory, follow_symlinks=False).st_mode):
                with _opened(hidden, directory) as fd:
                    os.setxattr(fd, OPAQUE_XATTR, b"y")

    # -- one method for each kind of entry

    def _top(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            if not self._overlay:
                return  # an archive may begin with an entry that has no name; tar(1) and docker pass over it
            raise InvalidArgument(f"the root of a layer cannot be a {entry.kind.value}")
        self._attributes(self._tree.top, entry)
        self._times[""] = entry.mtime

    def _directory(self, entry: Entry, directory: int, last: str) -> None:
        opaque = False
        try:
            os.mkdir(last, 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode):
                opaque = self._overlay and is_whiteout(directory, last)
                self._remove(directory, last, entry.name)
                os.mkdir(last, 0o700, dir_fd=directory)
        fd = os.open(last, _DIRECTORY, dir_fd=directory)
        self._tree.keep(entry.name, fd)
        self._attributes(fd, entry)
        if opaque:
            os.setxattr(fd, OPAQUE_XATTR, b"y")
        self._times[entry.name] = entry.mtime

    def _file(self, entry: Entry, directory: int, last: str) -> None:
        try:
            fd = os.open(last, _FRESH, 0o600, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, last, entry.name)
            fd = os.open(last, _FRESH, 0o600, dir_fd=directory)
        try:
            if entry.sparse is not None:
                self._fill_sparse(fd, entry)
            elif entry.stored:
                for piece in self._tar.data():
                    view = piece
                    while view:
                        view = view[os.write(fd, view) :]
            self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _fill_sparse(self, fd: int, entry: Entry) -> None:
        spans = iter(entry.sparse or ())
        at = left = 0
        for piece in self._tar.data():
            view = piece
            while view:
                if not left:
                    at, left = next(spans)
                wrote = os.pwrite(fd, view[:left], at)
                view, at, left = view[wrote:], at + wrote, left - wrote
        os.ftruncate(fd, entry.size)

    def _symlink(self, entry: Entry, directory: int, last: str) -> None:
        try:
            os.symlink(entry.link, last, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, last, entry.name)
            os.symlink(entry.link, last, dir_fd=directory)
        self._attributes_by_name(directory, last, entry)

    def _hardlink(self, entry: Entry, directory: int, last: str) -> None:
        head, _, base = entry.link.rpartition("/")
        source = self._link_source(entry, head)
        try:
            status = os.stat(base, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or (self._overlay and is_whiteout(source, base)):
                raise InvalidArgument(f"hard link {entry.name!r} points to {entry.link!r}, which is no file")
            try:
                os.link(base, last, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                if os.path.samestat(status, os.stat(last, dir_fd=directory, follow_symlinks=False)):
                    return
                self._remove(directory, last, entry.name)
                os.link(base, last, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            raise InvalidArgument(
                f"hard link {entry.name!r} points to {entry.link!r}, which this archive did not make"
            ) from None
        finally:
            os.close(source)

    def _link_source(self, entry: Entry, head: str) -> int:
        try:
            return self._tree.lookup(head)
        except FileNotFoundError:
            raise InvalidArgument(
                f"hard link {entry.name!r} points to {entry.link!r}, which this archive did not make"
            ) from None

    def _node(self, entry: Entry, directory: int, last: str) -> None:
        kinds = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
        if entry.kind is Kind.CHARACTER and (entry.major, entry.minor) == (0, 0) and self._overlay:
            raise InvalidArgument(f"layer entry {entry.name!r} is device 0:0, which overlayfs would take as a whiteout")
        if entry.major >= MAJOR_LIMIT or entry.minor >= MINOR_LIMIT:
            raise OSError(errno.EINVAL, entry.name)
        device = os.makedev(entry.major, entry.minor)
        try:
            os.mknod(last, kinds[entry.kind] | 0o600, device, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, last, entry.name)
            os.mknod(last, kinds[entry.kind] | 0o600, device, dir_fd=directory)
        self._attributes_by_name(directory, last, entry)

    # -- owner, mode, xattrs, times

    def _attributes(self, fd: int, entry: Entry) -> None:
        # Also when that is us: an earlier entry may have given a directory away, and a setgid parent gives its group.
        os.fchown(fd, *(self._owner or (entry.uid, entry.gid)))
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            for name, value in wanted_xattrs(entry):
                _set_xattr(fd, name, value)

    def _attributes_by_name(self, directory: int, last: str, entry: Entry) -> None:
        """For what cannot be opened without effects: links and nodes, made just now and never followed."""
        os.chown(last, *(self._owner or (entry.uid, entry.gid)), dir_fd=directory, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(last, entry.mode, dir_fd=directory)
        for name, value in wanted_xattrs(entry):
            _set_xattr(f"/proc/self/fd/{directory}/{last}", name, value)
        os.utime(last, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _set_directory_time(self, name: str, mtime: int) -> None:
        if not name:
            os.utime(self._tree.top, ns=(mtime, mtime))
            return
        head, _, last = name.rpartition("/")
        try:
            os.utime(last, ns=(mtime, mtime), dir_fd=self._tree.parent(head), follow_symlinks=False)
        except FileNotFoundError:
            pass  # a later entry replaced a parent of it

    def _remove(self, directory: int, last: str, name: str) -> None:
        """Take away what an earlier entry put here."""
        mode = os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            remove_tree(last, dir_fd=directory)
            for inside in [each for each in self._times if each == name or each.startswith(name + "/")]:
                del self._times[inside]
        else:
            os.unlink(last, dir_fd=directory)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._tree.forget()

    def _explained(self, error: OSError, entry: Entry) -> Exception:
        if error.errno in _HOSTILE:
            return InvalidArgument(f"archive entry {entry.name[:300]!r} cannot be unpacked: {os.strerror(error.errno)}")
        return error


def is_whiteout(directory: int, name: str) -> bool:
    """Whether the name is a 0:0 character device, overlayfs' form of "nothing here"."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def wanted_xattrs(entry: Entry) -> Iterator[tuple[str, bytes]]:
    """Yield the xattrs an image may set: not overlayfs' own, and of `security.*` only file capabilities."""
    for name, value in entry.xattrs.items():
        if "\0" in name or len(name.encode("utf-8", "surrogateescape")) > _XATTR_NAME_MAX or len(value) > _XATTR_MAX:
            raise InvalidArgument(f"archive entry {entry.name[:300]!r} has an xattr that no file can have")
        if name == CAPABILITY:
            if _is_capability(value):
                yield name, value
        elif not name.startswith(_DROPPED_XATTRS):
            yield name, value


def _is_capability(value: bytes) -> bool:
    """Whether the kernel knows the form: revision 2 or 3 (include/uapi/linux/capability.h, VFS_CAP_REVISION)."""
    revision = value[3] if len(value) > 3 else 0
    return (len(value), revision) in ((20, 2), (24, 3))


def _set_xattr(target: "int | str", name: str, value: bytes) -> None:
    try:
        os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        # A filesystem without this namespace, a name nobody knows, and a user xattr on what cannot have one
        # (`man 7 xattr`: links and devices) are no reason to refuse the image; docker passes over them too.
        if error.errno not in (errno.ENOTSUP, errno.EINVAL) and not (
            error.errno == errno.EPERM and name[:5] == "user."
        ):
            raise


class _opened:  # noqa: N801 - reads as a statement
    def __init__(self, name: str, directory: int) -> None:
        self._fd = os.open(name, _DIRECTORY, dir_fd=directory)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
