"""os, syscall, path: effects are real."""

import datetime as dt
import os as python_os
import posixpath
import shutil
import stat
import tempfile
from collections.abc import Callable
from typing import Any

from builder_judges.go.library.clock import Time
from builder_judges.go.library.text import is_error
from builder_judges.go.values import Error, Native, Package, Struct, Type

NOT_EXIST = Error("file does not exist")
EXIST = Error("file already exists")
EOF = Error("EOF")
MODE_DIR, MODE_SYMLINK, MODE_SOCKET, MODE_NAMED_PIPE = 1 << 31, 1 << 27, 1 << 24, 1 << 25
SETUID, SETGID, STICKY = 1 << 23, 1 << 22, 1 << 20


def _trying(action: Callable[..., Any], *, result: bool = True) -> Callable[..., Any]:
    """Make a function that returns Go's (value, error), or the error alone."""

    def call(*arguments: Any) -> Any:
        value, error = None, None
        try:
            value = action(*arguments)
        except OSError as caught:
            kinds = {FileNotFoundError: NOT_EXIST, FileExistsError: EXIST}
            error = Error(str(caught), kinds.get(type(caught)))
        return (value, error) if result else error

    return call


def unix_mode(mode: int) -> int:
    """Return a mode as the kernel has it, of one as Go has it."""
    bits = {SETUID: 0o4000, SETGID: 0o2000, STICKY: 0o1000}
    return mode & 0o777 | sum(bit for flag, bit in bits.items() if mode & flag)


class FileInfo(Native):
    """os.FileInfo."""

    def __init__(self, path: str, status: python_os.stat_result) -> None:
        self._path = path
        self._status = status

    def Name(self) -> str:
        return posixpath.basename(self._path)

    def IsDir(self) -> bool:
        return stat.S_ISDIR(self._status.st_mode)

    def Size(self) -> int:
        return self._status.st_size

    def Mode(self) -> "Mode":
        mode = self._status.st_mode
        kinds = {
            stat.S_IFDIR: MODE_DIR,
            stat.S_IFLNK: MODE_SYMLINK,
            stat.S_IFSOCK: MODE_SOCKET,
            stat.S_IFIFO: MODE_NAMED_PIPE,
        }
        bits = {0o4000: SETUID, 0o2000: SETGID, 0o1000: STICKY}
        return Mode(mode & 0o777 | kinds.get(stat.S_IFMT(mode), 0) | sum(f for b, f in bits.items() if mode & b))

    def ModTime(self) -> "Time":
        return Time(dt.datetime.fromtimestamp(self._status.st_mtime, dt.UTC))

    def same(self, other: "FileInfo") -> bool:
        return (self._status.st_dev, self._status.st_ino) == (other._status.st_dev, other._status.st_ino)

    def Sys(self) -> Struct:
        status = self._status
        fields = {"Uid": status.st_uid, "Gid": status.st_gid, "Ino": status.st_ino, "Nlink": status.st_nlink}
        return Struct("syscall.Stat_t", fields)


class Mode(int, Native):
    """os.FileMode."""

    def Perm(self) -> int:
        return self & 0o777

    def IsDir(self) -> bool:
        return bool(self & MODE_DIR)

    def IsRegular(self) -> bool:
        return not self & (MODE_DIR | MODE_SYMLINK | MODE_SOCKET | MODE_NAMED_PIPE)

    def Type(self) -> int:
        return self & ~0o777

    def String(self) -> str:
        return f"{self:o}"


class File(Native):
    """os.File."""

    def __init__(self, path: str, mode: str) -> None:
        self._path = path
        self._file = open(path, mode)  # noqa: SIM115 - closed by the suite, as Go's is

    def Write(self, data: bytes) -> tuple[int, None]:
        self._file.write(data)
        self._file.flush()
        return len(data), None

    def WriteString(self, text: str) -> tuple[int, None]:
        return self.Write(text.encode())

    def Bytes(self) -> bytes:
        return self._file.read()

    def Name(self) -> str:
        return self._path

    def Close(self) -> None:
        self._file.close()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, data: bytes, mode: int = 0o644) -> None:
    new = not python_os.path.exists(path)
    with open(path, "wb") as file:
        file.write(data or b"")
    if new:
        python_os.chmod(path, unix_mode(mode))


def _chtimes(path: str, accessed: "Time", modified: "Time") -> None:
    python_os.utime(path, ns=(accessed.UnixNano(), modified.UnixNano()))


def _mkdir(path: str, mode: int) -> None:
    python_os.mkdir(path)
    python_os.chmod(path, unix_mode(mode))


def _entries(path: str) -> list[FileInfo]:
    with python_os.scandir(path) as found:
        return [FileInfo(e.path, e.stat(follow_symlinks=False)) for e in sorted(found, key=lambda e: e.name)]


os = Package(
    "os",
    {
        "ReadFile": _trying(_read),
        "WriteFile": _trying(_write, result=False),
        "Create": _trying(lambda path: File(path, "w+b")),
        "Open": _trying(lambda path: File(path, "rb")),
        "OpenFile": _trying(lambda path, flags, mode: File(path, "w+b")),
        "O_CREATE": python_os.O_CREAT,
        "O_WRONLY": python_os.O_WRONLY,
        "O_RDWR": python_os.O_RDWR,
        "O_TRUNC": python_os.O_TRUNC,
        "Mkdir": _trying(_mkdir, result=False),
        "MkdirAll": _trying(lambda path, mode: python_os.makedirs(path, mode, exist_ok=True), result=False),
        "MkdirTemp": _trying(lambda where, name: tempfile.mkdtemp(prefix="ktest-", dir=where or "/var/tmp")),
        "Remove": _trying(
            lambda p: python_os.rmdir(p) if python_os.path.isdir(p) else python_os.unlink(p), result=False
        ),
        "RemoveAll": lambda path: shutil.rmtree(path, ignore_errors=True),
        "Rename": _trying(python_os.rename, result=False),
        "Stat": _trying(lambda path: FileInfo(path, python_os.stat(path))),
        "Lstat": _trying(lambda path: FileInfo(path, python_os.lstat(path))),
        "ReadDir": _trying(_entries),
        "Readlink": _trying(python_os.readlink),
        "Symlink": _trying(python_os.symlink, result=False),
        "Link": _trying(python_os.link, result=False),
        "Chmod": _trying(lambda path, mode: python_os.chmod(path, unix_mode(mode)), result=False),
        "Chown": _trying(python_os.chown, result=False),
        "Lchown": _trying(python_os.lchown, result=False),
        "Chtimes": _trying(_chtimes, result=False),
        "Getenv": lambda name: "1" if name.startswith("BUILDKIT_RUN_") else "",
        "TempDir": lambda: "/var/tmp",
        "Getuid": python_os.getuid,
        "SameFile": lambda a, b: a.same(b),
        "IsNotExist": lambda error: is_error(error, NOT_EXIST),
        "ErrNotExist": NOT_EXIST,
        "FileMode": Type("os.FileMode", make=Mode),
        "ModeDir": MODE_DIR,
        "ModeSymlink": MODE_SYMLINK,
        "ModeSetuid": SETUID,
        "ModeSetgid": SETGID,
        "ModeSticky": STICKY,
        "ModeSocket": MODE_SOCKET,
    },
)
syscall = Package(
    "syscall",
    {
        "Chmod": _trying(python_os.chmod, result=False),
        "Mkfifo": _trying(python_os.mkfifo, result=False),
        "Mknod": _trying(python_os.mknod, result=False),
        "Setxattr": _trying(lambda path, name, value, _: python_os.setxattr(path, name, value), result=False),
        **{name: getattr(stat, name) for name in ("S_IFIFO", "S_ISUID", "S_ISGID", "S_ISVTX", "S_IFSOCK")},
    },
)


def _join(*parts: str) -> str:
    found = "/".join(part for part in parts if part)
    return posixpath.normpath(found) if found else ""


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


filepath = Package(
    "filepath",
    {
        "Join": _join,
        "Clean": _clean,
        "Dir": lambda path: posixpath.dirname(path) or ".",
        "Base": lambda path: posixpath.basename(path.rstrip("/")),
        "Ext": lambda path: posixpath.splitext(path)[1],
        "Rel": lambda base, path: (posixpath.relpath(path, base), None),
        "Abs": lambda path: (posixpath.abspath(path), None),
        "ToSlash": lambda path: path,
        "FromSlash": lambda path: path,
        "Separator": ord("/"),
    },
)
