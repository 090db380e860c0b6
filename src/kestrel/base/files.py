"""Files that survive a crash: written whole or not at all, and known to be on disk before we say so."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync_directory(path: "str | Path") -> None:
    """Make the names in a directory durable (`man 2 fsync`: a new name needs its directory synced too)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: "str | Path", data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Put `data` at `path` in one step: readers see the old bytes or the new, never a part.

    With `durable` the bytes and the name are on disk when this returns.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        if durable:
            os.fsync(fd)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    os.replace(temporary, path)
    if durable:
        sync_directory(path.parent)


def read_regular(path: "str | Path", most: int) -> bytes:
    """Return what a regular file holds, at most `most` bytes and one more, which tells that there is too much.

    Raises OSError, also for what is no regular file: to open a pipe waits for its other end, and a device has no end.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read(most + 1)


def private_directory(path: "str | Path") -> Path:
    """Create a directory only its owner can enter (parents too), and return it."""
    path = Path(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextmanager
def locked(path: "str | Path", *, blocking: bool = True) -> Iterator[int]:
    """Hold an exclusive lock on a file; yields its descriptor. The kernel drops the lock when the holder dies.

    Raises BlockingIOError when another process holds it and `blocking` is false.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        yield fd
    finally:
        os.close(fd)
