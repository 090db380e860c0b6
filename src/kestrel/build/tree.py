"""A directory tree to copy from, reached by one descriptor: the build context, or a stage's root filesystem.

Nothing outside can be reached. Paths are resolved with openat2 inside the root, and a walk goes from directory to
directory by descriptor without following links, so a link (or a directory swapped for one while we look) leads
nowhere else. Only what an instruction names is looked at.

    tree = Tree(fd, name="the build context", ignore=patterns)
    for source in tree.select("src/*.py"):
        source.entries                # the source itself first (path ""), then everything below it, depth first
"""

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from kestrel.base.errors import InvalidArgument, NotFound, nearest
from kestrel.dockerfile.glob import BadPattern, Matcher, path_pattern
from kestrel.dockerfile.ignore import Cursor, IgnoreList, compile_patterns
from kestrel.linux import mounts
from kestrel.linux.rootfs import Rootfs

_LINKS = 40  # as the kernel's MAXSYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE, DIRECTORY, LINK, CHARACTER, BLOCK, FIFO = "f", "d", "l", "c", "b", "p"
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: LINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
}


class Entry(NamedTuple):
    """One file of a selection. `path` is relative to the selected source; `target` is a link's, `device` a number."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    device: int
    target: str
    inode: tuple[int, int]
    stamps: tuple[int, int]
    """Modification and change time in nanoseconds: they tell whether a known digest still holds."""
    links: int
    xattrs: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One thing that a pattern selected. `path` leads to it from the tree's root, links already resolved."""

    path: str
    name: str
    entries: tuple[Entry, ...]

    @property
    def is_directory(self) -> bool:
        """Whether the source itself is a directory, whose contents are what gets copied."""
        return self.entries[0].kind == DIRECTORY


class Missing(NotFound):
    """Nothing of that name is in the tree."""


class Tree:
    """What can be selected from. Owns `fd` and closes it; use as a context manager. `where` is its path, for people.

    `owners` keeps user, group and extended attributes of what is read (a stage's files); without it everything
    belongs to root, as docker has it for the build context. `lasting` says that a file's device, inode and times
    mean the same file the next time. `view` is the plan of the root that it is, if it is one.
    """

    def __init__(
        self,
        fd: int,
        *,
        name: str,
        where: str = "",
        ignore: IgnoreList | None = None,
        owners: bool = False,
        view: Rootfs | None = None,
    ) -> None:
        self.fd = fd
        self.name = name
        self._where = f" ({where})" if where else ""
        self.ignore = ignore or IgnoreList()
        self.owners = owners
        self.view = view
        self.lasting = not owners

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the descriptor (which unmounts a detached root)."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # Selecting

    def select(self, pattern: str, *, exclude: tuple[str, ...] = ()) -> list[Source]:
        """Return what a COPY source names, in order of name; nothing for wildcards without a match.

        Raises Missing for a plain path that is absent or ignored, InvalidArgument for a malformed pattern.
        """
        cleaned = posixpath.normpath("/" + pattern).lstrip("/")
        left_out = compile_patterns(exclude)
        if not has_wildcards(cleaned):
            return [self._source(_unescape(cleaned), pattern, left_out)]
        found = self._matched(cleaned, left_out)
        return [source for source in found if source.is_directory or not left_out.ignores(source.name)]

    def select_parents(self, pattern: str, *, exclude: tuple[str, ...] = ()) -> list[Source]:
        """Return what a source of `COPY --parents` names: each with the directories above it to keep.

        Up to a `/./` in the pattern nothing is kept; `**` crosses directories.
        """
        before, pivot, after = pattern.partition("/./")
        base = posixpath.normpath("/" + before).lstrip("/") if pivot else ""
        wanted = posixpath.normpath("/" + (after if pivot else pattern)).lstrip("/")
        left_out = compile_patterns(exclude)
        if has_wildcards(base):
            wholes = list(self._matched(base, left_out))
        else:
            wholes = [self._source(_unescape(base), pattern, left_out)]
        if wanted == "":
            return wholes
        matcher = _matcher(wanted, double_star=True)
        found = [replace(whole, entries=tuple(_matching(whole.entries, matcher))) for whole in wholes]
        if not has_wildcards(pattern) and all(len(source.entries) == 1 for source in found):
            raise self._missing(wanted, pattern)
        return found

    def exists(self, path: str) -> bool:
        """Tell whether a path resolves inside the tree."""
        try:
            with mounts.opened(mounts.open_in_root(self.fd, path or ".")):
                return True
        except OSError:
            return False

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """Return a file's bytes, links resolved inside the root. Raises OSError."""
        with mounts.opened(mounts.open_in_root(self.fd, path, os.O_RDONLY | os.O_NONBLOCK)) as fd:
            return os.read(fd, limit)

    @contextmanager
    def opened(self, source: Source) -> Iterator["Reader"]:
        """Open a selection for reading its files in order."""
        path = source.path if source.is_directory else posixpath.dirname(source.path)
        fd = mounts.open_in_root(self.fd, path or ".", os.O_RDONLY | os.O_DIRECTORY)
        reader = Reader(fd, "" if source.is_directory else posixpath.basename(source.path))
        try:
            yield reader
        finally:
            reader.close()

    def _matched(self, glob: str, exclude: IgnoreList) -> Iterator[Source]:
        """Yield what wildcards match. What is ignored is not there for them, as nothing is that no layer can hold."""
        for path in self._glob(glob):
            try:
                source = self._source(path, path, exclude)
            except Missing:
                if not self.ignore.ignores(path):
                    raise
                continue
            yield source

    def _source(self, path: str, pattern: str, exclude: IgnoreList) -> Source:
        real = self.resolve(path)
        cursor = self._cursor(real)
        try:
            with mounts.opened(mounts.open_in_root(self.fd, real or ".", os.O_PATH | os.O_NOFOLLOW)) as fd:
                status = os.fstat(fd)
        except OSError:
            raise self._missing(path, pattern) from None
        if stat.S_ISSOCK(status.st_mode):
            raise Missing(f"`{pattern}` is a socket, which no layer can hold", hint="leave it out")
        # A link to a file outside of what the build may see is as absent as the file itself.
        directory = stat.S_ISDIR(status.st_mode)
        if (cursor.ignored or self.ignore.ignores(path)) and not (directory and self.ignore.has_exceptions):
            raise self._missing(path, pattern)
        name = posixpath.basename(path)
        entries: list[Entry] = []
        if not directory:
            place, base = posixpath.split(real)
            with mounts.opened(mounts.open_in_root(self.fd, place or ".", os.O_RDONLY | os.O_DIRECTORY)) as parent:
                entries.append(self._entry(parent, base, "", status))
            return Source(path=real, name=name, entries=tuple(entries))
        entries.append(self._entry(self.fd, real or ".", "", status))
        with mounts.opened(mounts.open_in_root(self.fd, real or ".", os.O_RDONLY | os.O_DIRECTORY)) as fd:
            self._scan(fd, "", cursor, exclude, exclude.root, entries)
        if cursor.ignored and len(entries) == 1:
            raise self._missing(path, pattern)
        return Source(path=real, name=name, entries=tuple(entries))

    def _cursor(self, path: str) -> Cursor:
        cursor = self.ignore.root
        for name in path.split("/"):
            if name:
                cursor = self.ignore.enter(cursor, name)
        return cursor

    def _scan(
        self, fd: int, prefix: str, cursor: Cursor, exclude: IgnoreList, left_out: Cursor, entries: list[Entry]
    ) -> None:
        """Append everything below the directory behind `fd`. The hot loop of an unchanged build."""
        with os.scandir(fd) as listing:
            found = sorted(listing, key=_by_name)
        check, check_excluded = bool(self.ignore), bool(exclude)
        inner, inner_left_out = cursor, left_out
        for item in found:
            name = item.name
            if check:
                inner = self.ignore.enter(cursor, name)
            if check_excluded:
                inner_left_out = exclude.enter(left_out, name)
            hidden = inner.ignored or inner_left_out.ignored
            if hidden and not (
                item.is_dir(follow_symlinks=False)
                and (not inner.ignored or self.ignore.has_exceptions)
                and (not inner_left_out.ignored or exclude.has_exceptions)
            ):
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed while we look
            path = prefix + name
            if not stat.S_ISDIR(status.st_mode):
                if stat.S_IFMT(status.st_mode) in _KINDS:  # a socket cannot be copied
                    entries.append(self._entry(fd, name, path, status))
                continue
            before = len(entries)
            entries.append(self._entry(fd, name, path, status))
            with mounts.opened(os.open(name, _DIRECTORY, dir_fd=fd)) as child:
                self._scan(child, path + "/", inner, exclude, inner_left_out, entries)
            if hidden and len(entries) == before + 1:
                entries.pop()  # nothing below was taken back

    def _entry(self, fd: int, name: str, path: str, status: os.stat_result) -> Entry:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        owners = self.owners
        return Entry(
            path,
            kind,
            status.st_mode & 0o7777,
            status.st_uid if owners else 0,
            status.st_gid if owners else 0,
            status.st_size if kind == FILE else 0,
            status.st_rdev if kind in (CHARACTER, BLOCK) else 0,
            os.readlink(name, dir_fd=fd) if kind == LINK else "",
            (status.st_dev, status.st_ino),
            (status.st_mtime_ns, status.st_ctime_ns),
            status.st_nlink if owners and kind == FILE else 1,
            _xattrs(fd, name) if owners and kind in (FILE, DIRECTORY) else (),
        )

    # Paths

    def resolve(self, path: str) -> str:
        """Return the path with every link in it followed inside the root; what does not exist stays as it is."""
        return resolve(self.fd, path)

    def _glob(self, pattern: str) -> list[str]:
        """Return the paths that match a pattern of Go's filepath.Match, component by component."""
        paths = [""]
        for component in pattern.split("/"):
            if not has_wildcards(component):
                paths = [posixpath.join(path, _unescape(component)) for path in paths]
                continue
            matcher = _matcher(component)
            paths = [posixpath.join(p, name) for p in paths for name in self._names(p) if matcher.matches(name)]
        return [path for path in paths if self._is_there(path)]

    def _names(self, path: str) -> list[str]:
        try:
            with mounts.opened(mounts.open_in_root(self.fd, path or ".", os.O_RDONLY | os.O_DIRECTORY)) as fd:
                return sorted(os.listdir(fd))
        except OSError:
            return []

    def _is_there(self, path: str) -> bool:
        try:
            with mounts.opened(mounts.open_in_root(self.fd, path or ".", os.O_PATH | os.O_NOFOLLOW)) as fd:
                return not stat.S_ISSOCK(os.fstat(fd).st_mode)
        except OSError:
            return False

    def _missing(self, path: str, pattern: str) -> Missing:
        """Make the error that says what is absent, why, and what may have been meant."""
        line = self.ignore.reason(path) or self.ignore.reason(self.resolve(path))
        if line is not None and self.exists(path):
            where = f"{self.ignore.name}:{line.line}"
            return Missing(
                f"`{pattern}` is excluded from {self.name} by `{line}` ({where})",
                hint=f"take it back with a line `!{path}` after it",
            )
        if pattern.startswith("../") or pattern == "..":
            return Missing(
                f"`{pattern}` is outside of {self.name}",
                hint="give a directory above as the context, and name the file from there",
            )
        real = self.resolve(path)
        if real != path:
            return Missing(
                f"`{pattern}` is a link, and leads to `{real}`, which is not in {self.name}{self._where}",
                hint=f"links are followed inside of {self.name} only",
            )
        return Missing(f"`{pattern}` is not in {self.name}{self._where}", hint=self._similar(path))

    def _similar(self, path: str) -> str | None:
        """Return a hint with the nearest existing name, looking at the first component that is absent."""
        walked = ""
        for component in path.split("/"):
            following = posixpath.join(walked, component)
            if not self.exists(following):
                visible = [n for n in self._names(walked) if not self.ignore.ignores(posixpath.join(walked, n))]
                close = nearest(component, visible)
                if close is not None:
                    return f"did you mean `{posixpath.join(walked, close)}`?"
                place = f"`{walked}`" if walked else self.name
                return f"{place} holds {_some(visible)}" if visible else f"{place} is empty"
            walked = following
        return None


class Reader:
    """Opens the files of a selection in their order, keeping the descriptors of the directories it is in."""

    def __init__(self, fd: int, single: str) -> None:
        self._stack: list[tuple[str, int]] = [("", fd)]
        self._single = single

    def directory(self, path: str) -> int:
        """Return a descriptor of the directory that holds `path`; valid until the next call."""
        parent = posixpath.dirname(path)
        while self._stack[-1][0] and not (parent + "/").startswith(self._stack[-1][0] + "/"):
            os.close(self._stack.pop()[1])
        walked, fd = self._stack[-1]
        for name in parent[len(walked) :].strip("/").split("/"):
            if name:
                fd = os.open(name, _DIRECTORY, dir_fd=fd)
                walked = f"{walked}/{name}" if walked else name
                self._stack.append((walked, fd))
        return fd

    def open(self, path: str) -> int:
        """Open a file of the selection for reading; the caller closes it."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if not path:
            return os.open(self._single, flags, dir_fd=self._stack[0][1])
        return os.open(posixpath.basename(path), flags, dir_fd=self.directory(path))

    def close(self) -> None:
        """Let go of all directories."""
        while self._stack:
            os.close(self._stack.pop()[1])


def resolve(root: int, path: str) -> str:
    """Follow every link of a path inside `root`, as openat2 would, also where the end does not exist yet."""
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    done: list[str] = []
    followed = 0
    while pending:
        part = pending.pop()
        if part == "..":
            done = done[:-1]
            continue
        target = _link_target(root, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        followed += 1
        if followed > _LINKS:
            raise InvalidArgument(f"too many symbolic links in {path!r}")
        if target.startswith("/"):
            done = []
        pending.extend(p for p in reversed(target.split("/")) if p not in ("", "."))
    return "/".join(done)


def _link_target(root: int, path: str) -> str | None:
    try:
        with mounts.opened(mounts.open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)) as fd:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    except OSError:
        return None


def has_wildcards(pattern: str) -> bool:
    """Tell whether a path has an unescaped wildcard of Go's filepath.Match."""
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            next(characters, None)
        elif character in "*?[":
            return True
    return False


def _unescape(path: str) -> str:
    if "\\" not in path:
        return path
    characters = iter(path)
    return "".join(next(characters, "") if c == "\\" else c for c in characters)


def _matcher(pattern: str, *, double_star: bool = False) -> Matcher:
    try:
        return Matcher([path_pattern(pattern, double_star=double_star)])
    except BadPattern:
        raise InvalidArgument(
            f"malformed pattern `{pattern}`", hint=r"close every `[`, and write `\[` for the character itself"
        ) from None


def _matching(entries: tuple[Entry, ...], matcher: Matcher) -> list[Entry]:
    """Keep the entries that match, what is below them, and the directories above them."""
    kept: list[Entry] = [entries[0]]
    above: list[Entry] = []
    inside = ""
    for entry in entries[1:]:
        while above and not entry.path.startswith(above[-1].path + "/"):
            above.pop()
        below = bool(inside) and entry.path.startswith(inside)
        if below or matcher.matches(entry.path):
            if not below:
                inside = entry.path + "/" if entry.kind == DIRECTORY else ""
            kept.extend(above)
            above = []
            kept.append(entry)
        elif entry.kind == DIRECTORY:
            above.append(entry)
    return kept


def _by_name(item: "os.DirEntry[str]") -> str:
    return item.name


def _xattrs(fd: int, name: str) -> tuple[tuple[str, bytes], ...]:
    """Read what belongs to the file and not to this host: user attributes and file capabilities."""
    path = f"/proc/self/fd/{fd}/{name}"
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return tuple(
            (key, os.getxattr(path, key, follow_symlinks=False))
            for key in sorted(names)
            if key.startswith("user.") or key == "security.capability"
        )
    except OSError:
        return ()


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
