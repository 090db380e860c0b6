"""The hands of COPY, ADD and WORKDIR: put selected files into a stage's root, every path by descriptor.

The destination follows docker's rules (https://docs.docker.com/reference/dockerfile/#copy):

- with a slash at the end, or where a directory is already, it is a directory and files keep their names;
- of a directory the contents are copied, not the directory itself; existing directories are merged into;
- links in the destination's path are followed inside the root, links below it are replaced;
- directories made on the way have the owner of `--chown`, and mode 0755 or the number that `--chmod` gives.

Every file gets the time `epoch`, so that what later steps see does not depend on when or where this ran.
"""

import os
import posixpath
import stat
from collections.abc import Callable

from kestrel.base.errors import FailedPrecondition
from kestrel.build.digests import check_unchanged
from kestrel.build.ownership import Mode
from kestrel.build.tree import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, LINK, Entry, Reader, Source, Tree, resolve
from kestrel.linux import mounts

_PIECE = 1 << 17
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Writer:
    """Writes into the root behind `root`. `owner` and `mode` replace what the files say, when given."""

    def __init__(
        self, root: int, *, epoch: int, owner: tuple[int, int] | None = None, mode: Mode | None = None
    ) -> None:
        self._root = root
        self._time = (epoch * 1_000_000_000, epoch * 1_000_000_000)
        self._owner = owner
        self._mode = mode
        self._hard_links: dict[tuple[int, int], tuple[int, str]] = {}

    # Destinations

    def make_directory(self, path: str) -> int:
        """Create the missing directories of a path, and return a descriptor of the last."""
        real = resolve(self._root, path)
        fd = mounts.open_in_root(self._root, ".", os.O_RDONLY | os.O_DIRECTORY)
        walked = ""
        for name in real.split("/"):
            if not name:
                continue
            walked += f"/{name}"
            try:
                following = self._enter(fd, name)
            except NotADirectoryError:
                raise FailedPrecondition(
                    f"`{walked}` is a file, and a directory is needed there", hint="choose another destination"
                ) from None
            finally:
                os.close(fd)
            fd = following
        return fd

    def _enter(self, fd: int, name: str) -> int:
        try:
            return os.open(name, _OPEN, dir_fd=fd)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=fd)
        made = os.open(name, _OPEN, dir_fd=fd)
        os.fchown(made, *(self._owner or (0, 0)))
        os.fchmod(made, made_directory(self._mode))
        os.utime(made, ns=self._time)
        return made

    def place(self, tree: Tree, source: Source, destination: str, *, as_directory: bool) -> None:
        """Copy a selection to `destination`, an absolute path of the root; `as_directory` if it was written so."""
        with tree.opened(source) as reader:
            if source.is_directory:
                fd = self.make_directory(destination)
                try:
                    self._fill(fd, reader, source, checked=not tree.owners)
                finally:
                    os.close(fd)
                return
            directory, name = self._file_place(destination, source.name, as_directory)
            try:
                self._write(directory, name, source.entries[0], reader, source, checked=not tree.owners)
            finally:
                os.close(directory)

    def put(self, name: str, data: bytes, destination: str, *, as_directory: bool, mode: int = 0o644) -> None:
        """Write one file given as bytes."""
        directory, name = self._file_place(destination, name, as_directory)
        try:
            fd = self._create(directory, name)
            try:
                _write_all(fd, data)
                self._finish_file(fd, mode, (0, 0), ())
            finally:
                os.close(fd)
        finally:
            os.close(directory)

    def _file_place(self, destination: str, name: str, as_directory: bool) -> tuple[int, str]:
        """Return a descriptor of the directory a file goes to, and its name there."""
        real = resolve(self._root, destination)
        if as_directory or self._is_directory(real):
            return self.make_directory(real), name
        parent, base = posixpath.split(real)
        return self.make_directory(parent), base

    def _is_directory(self, path: str) -> bool:
        try:
            with mounts.opened(mounts.open_in_root(self._root, path or ".", os.O_PATH | os.O_DIRECTORY)):
                return True
        except OSError:
            return False

    # Trees

    def _fill(self, fd: int, reader: Reader, source: Source, *, checked: bool) -> None:
        """Write the entries below a directory; they come depth first, directories before their contents."""
        stack: list[tuple[str, int]] = [("", os.dup(fd))]
        try:
            for entry in source.entries[1:]:
                parent, _, name = entry.path.rpartition("/")
                while stack[-1][0] != parent:
                    self._leave(stack.pop()[1])
                directory = stack[-1][1]
                if entry.kind == DIRECTORY:
                    stack.append((entry.path, self._merge(directory, name, entry)))
                else:
                    self._write(directory, name, entry, reader, source, checked=checked)
        finally:
            while stack:
                self._leave(stack.pop()[1])

    def _leave(self, fd: int) -> None:
        """The last change to a directory is its time: files written into it have moved it."""
        os.utime(fd, ns=self._time)
        os.close(fd)

    def _merge(self, directory: int, name: str, entry: Entry) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise FailedPrecondition(
                    f"cannot copy the directory `{entry.path}` over a file of that name",
                    hint="remove it in a RUN before, or choose another destination",
                ) from None
        fd = os.open(name, _OPEN, dir_fd=directory)
        self._finish_file(fd, entry.mode, (entry.uid, entry.gid), entry.xattrs, directory=True)
        return fd

    # Files

    def _write(self, directory: int, name: str, entry: Entry, reader: Reader, source: Source, *, checked: bool) -> None:
        if entry.kind == FILE:
            self._write_file(directory, name, entry, reader, source, checked)
        elif entry.kind == LINK:
            self._replacing(directory, name, lambda: os.symlink(entry.target, name, dir_fd=directory))
            os.chown(name, *(self._owner or (entry.uid, entry.gid)), dir_fd=directory, follow_symlinks=False)
            os.utime(name, ns=self._time, dir_fd=directory, follow_symlinks=False)
        elif entry.kind in (CHARACTER, BLOCK, FIFO):
            kind = {CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}[entry.kind]
            self._replacing(directory, name, lambda: os.mknod(name, kind | 0o600, entry.device, dir_fd=directory))
            os.chown(name, *(self._owner or (entry.uid, entry.gid)), dir_fd=directory, follow_symlinks=False)
            os.chmod(name, self._mode_of(entry.mode, directory=False), dir_fd=directory)
            os.utime(name, ns=self._time, dir_fd=directory, follow_symlinks=False)

    def _write_file(
        self, directory: int, name: str, entry: Entry, reader: Reader, source: Source, checked: bool
    ) -> None:
        if entry.links > 1 and self._link_again(directory, name, entry):
            return
        origin = reader.open(entry.path)
        try:
            if checked:
                check_unchanged(origin, entry, source)
            fd = self._create(directory, name)
            try:
                _copy(origin, fd, entry.size)
                self._finish_file(fd, entry.mode, (entry.uid, entry.gid), entry.xattrs)
            finally:
                os.close(fd)
        finally:
            os.close(origin)
        if entry.links > 1:
            self._hard_links[entry.inode] = (os.dup(directory), name)

    def _link_again(self, directory: int, name: str, entry: Entry) -> bool:
        """Names of one file stay one file."""
        first = self._hard_links.get(entry.inode)
        if first is None:
            return False
        self._replacing(
            directory,
            name,
            lambda: os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=directory, follow_symlinks=False),
        )
        return True

    def close(self) -> None:
        """Let go of what was kept for hard links."""
        for fd, _ in self._hard_links.values():
            os.close(fd)
        self._hard_links.clear()

    def _create(self, directory: int, name: str) -> int:
        try:
            return os.open(name, _CREATE, 0o600, dir_fd=directory)
        except FileExistsError:
            self._clear(directory, name)
            return os.open(name, _CREATE, 0o600, dir_fd=directory)

    def _replacing(self, directory: int, name: str, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(directory, name)
            make()

    def _clear(self, directory: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            raise FailedPrecondition(
                f"cannot copy a file over the directory `{name}`",
                hint="remove the directory in a RUN before, or choose another destination",
            ) from None

    def _finish_file(
        self,
        fd: int,
        mode: int,
        owner: tuple[int, int],
        xattrs: tuple[tuple[str, bytes], ...],
        *,
        directory: bool = False,
    ) -> None:
        """Owner first: changing it clears the set-id bits and the capabilities (`man 2 chown`)."""
        os.fchown(fd, *(self._owner or owner))
        os.fchmod(fd, self._mode_of(mode, directory=directory))
        for key, value in xattrs:
            os.setxattr(fd, key, value)
        os.utime(fd, ns=self._time)

    def _mode_of(self, mode: int, *, directory: bool) -> int:
        return mode if self._mode is None else self._mode.apply(mode, directory=directory)


def made_directory(mode: Mode | None) -> int:
    """Return the mode of a directory that is made on the way: `--chmod` counts as a number, not as a change."""
    return 0o755 if mode is None or mode.fixed is None else mode.fixed


def _copy(origin: int, fd: int, size: int) -> None:
    if size <= _PIECE:
        while piece := os.read(origin, _PIECE):
            _write_all(fd, piece)
        return
    while True:
        try:
            if os.copy_file_range(origin, fd, 1 << 30) == 0:
                return
        except OSError:  # not between these two filesystems
            break
    while os.sendfile(fd, origin, None, 1 << 24):
        pass


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
