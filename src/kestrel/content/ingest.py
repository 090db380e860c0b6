"""How bytes become a blob: written to a temporary, hashed as they come, synced, renamed, the directory synced.

Only after the last of these does `commit` return, so an acknowledged blob survives a power cut (`man 2 fsync`).
A crash before leaves a temporary: an anonymous one (`ContentWriter`) goes at the next start, a named one
(`Upload`) waits to be resumed until it is too old. A temporary carries a flock while somebody writes it; the
kernel drops the lock with the process, so "locked" means "alive" and never has to be cleaned up.
"""

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Protocol, Self

from kestrel.archive.disk import disk_errors
from kestrel.base.errors import Conflict, DataLoss, FailedPrecondition
from kestrel.oci.digest import DEFAULT_ALGORITHM, Digest, Hasher

_REHASH_PIECE = 1 << 20


class Home(Protocol):
    """Where blobs go when they are whole: what this module needs of the store."""

    root: Path

    def adopt(self, fd: int, path: Path, digest: Digest) -> None:
        """Give a verified temporary its final name, durably."""
        ...

    def remember_upload(self, upload_id: str, hasher: Hasher | None) -> None:
        """Keep the running hash of an upload that pauses."""
        ...

    def forget_upload(self, upload_id: str) -> None:
        """Drop the running hash of an upload that is over."""
        ...


class ContentWriter:
    """One blob on its way in. Use as a context manager: what is not committed when it ends is thrown away."""

    def __init__(self, store: Home, path: Path, *, expected: Digest | None, size: int | None) -> None:
        self._store = store
        self._path = path
        self._expected = expected
        self._wanted_size = size
        self._hasher = Hasher(expected.algorithm if expected else DEFAULT_ALGORITHM)
        self._fd = _create(path)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._hasher.size

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return self._hasher.digest()

    def write(self, data: "bytes | bytearray | memoryview") -> int:
        """Append; returns the number of bytes taken, always all. Raises DataLoss beyond the announced size."""
        if self._wanted_size is not None and self.size + len(data) > self._wanted_size:
            raise DataLoss(
                f"received more than the announced {self._wanted_size} bytes"
                + (f" for {self._expected}" if self._expected else "")
            )
        with disk_errors(self._store.root):
            write_all(self._fd, data)
        self._hasher.update(data)
        return len(data)

    def link(self, target: Path) -> bool:
        """Give the bytes to come a second name, for one who keeps them as a file; False where that cannot be."""
        if self.size:
            return False
        try:
            os.link(self._path, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
            return False
        return True

    def commit(self, expected: Digest | None = None) -> Digest:
        """Verify, make durable, give the blob its name; returns the digest. Raises DataLoss on a mismatch."""
        if self._fd < 0:
            raise FailedPrecondition("this blob is already committed or thrown away")
        if self._wanted_size is not None and self.size != self._wanted_size:
            raise DataLoss(f"received {self.size} bytes of the announced {self._wanted_size}")
        wanted = expected or self._expected
        if wanted and wanted.algorithm != self._hasher.algorithm:
            self._hasher = hash_file(self._path, wanted.algorithm)
        actual = self.digest
        if wanted and wanted != actual:
            raise DataLoss(f"expected {wanted}, but the {self.size} bytes received have {actual}")
        with disk_errors(self._store.root):
            self._store.adopt(self._fd, self._path, actual)
        self._close()
        return actual

    def abort(self) -> None:
        """Throw away what was written; after a commit this does nothing."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


class Upload:
    """A named blob in the making, resumable at `offset` across requests and restarts.

    While the daemon lives the running hash waits in the store; after a restart it is computed again from the file
    when the upload is committed. Closing keeps what was written, `abort` throws it away.
    """

    def __init__(self, store: Home, upload_id: str, path: Path, hasher: Hasher | None, algorithm: str) -> None:
        self._store = store
        self.id = upload_id
        self._path = path
        self._fd = _open_locked(path, upload_id)
        self._followers: list[Follower] = []
        self.offset = os.lseek(self._fd, 0, os.SEEK_END)
        fresh = Hasher(algorithm) if self.offset == 0 else None
        self._hasher = hasher if hasher and hasher.size == self.offset else fresh

    def write(self, data: "bytes | bytearray | memoryview") -> int:
        """Append at `offset`; returns the number of bytes taken, always all."""
        try:
            with disk_errors(self._store.root):
                write_all(self._fd, data)
        except BaseException:
            # A full disk may have taken a part; it is right, and counts.
            self.offset = os.lseek(self._fd, 0, os.SEEK_END)
            self._hasher = None
            raise
        self.offset += len(data)
        for follower in self._followers:
            follower.advance(self.offset)
        if self._hasher:
            self._hasher.update(data)
        return len(data)

    def follow(self) -> "Follower":
        """Return a reader of the bytes from the first on, as they come, for another thread."""
        follower = Follower(self._path)
        follower.advance(self.offset)
        self._followers.append(follower)
        return follower

    def commit(self, expected: Digest, size: int | None = None) -> Digest:
        """Verify, make durable, give the blob its name. On DataLoss the upload stays, for the caller to abort."""
        if size is not None and self.offset != size:
            raise DataLoss(f"received {self.offset} bytes of the announced {size} for {expected}")
        if self._hasher is None or self._hasher.algorithm != expected.algorithm:
            self._hasher = hash_file(self._path, expected.algorithm)
        actual = self._hasher.digest()
        if actual != expected:
            raise DataLoss(f"expected {expected}, but the {self.offset} bytes received have {actual}")
        for follower in self._followers:
            follower.end(complete=True)
        with disk_errors(self._store.root):
            self._store.adopt(self._fd, self._path, actual)
        self._store.forget_upload(self.id)
        self._close()
        return actual

    def truncate(self, offset: int = 0) -> None:
        """Go back to `offset`, for a peer that cannot resume."""
        os.ftruncate(self._fd, offset)
        os.lseek(self._fd, offset, os.SEEK_SET)
        self._hasher = Hasher(self._hasher.algorithm if self._hasher else DEFAULT_ALGORITHM) if offset == 0 else None
        self.offset = offset

    def abort(self) -> None:
        """Throw the upload away; after a commit this does nothing."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            self._store.forget_upload(self.id)
            self._close()

    def close(self) -> None:
        """Stop writing for now; the upload can be opened again by its id."""
        if self._fd >= 0:
            self._store.remember_upload(self.id, self._hasher)
            self._close()

    def _close(self) -> None:
        for follower in self._followers:
            follower.end(complete=False)
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Follower:
    """Reads a file that somebody else still writes; waits at its end until there is more, or no more will come."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._changed = threading.Condition()
        self._written = self._read = 0
        self._ended = self._complete = False

    def advance(self, written: int) -> None:
        """Say how many bytes there are."""
        with self._changed:
            self._written = written
            self._changed.notify()

    def end(self, *, complete: bool) -> None:
        """Say that no more will come; only the first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._complete = True, complete
            self._changed.notify()

    def read(self, size: int, /) -> bytes:
        """Return some bytes, none at the end. Raises DataLoss when the writer gave up."""
        with self._changed:
            while self._read == self._written and not self._ended:
                self._changed.wait()
            if self._ended and not self._complete:
                raise DataLoss("what was read ended early, as the transfer did")
            available = self._written - self._read
        data = self._file.read(min(size, available)) if available else b""
        self._read += len(data)
        return data

    def close(self) -> None:
        """Stop reading."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_all(fd: int, data: "bytes | bytearray | memoryview") -> None:
    """Write every byte (`man 2 write` may take fewer)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def hash_file(path: Path, algorithm: str) -> Hasher:
    """Return the hasher after all bytes of a file."""
    hasher = Hasher(algorithm)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_REHASH_PIECE):
            hasher.update(piece)
    return hasher


def is_abandoned(path: Path) -> bool:
    """Whether no living process is writing this temporary."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _create(path: Path) -> int:
    with disk_errors(path.parent):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _open_locked(path: Path, upload_id: str) -> int:
    with disk_errors(path.parent):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Conflict(
            f"upload {upload_id} is being written by another request", hint="send its parts in order"
        ) from error
    return fd
