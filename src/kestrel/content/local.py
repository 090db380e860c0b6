"""The store of blobs on disk.

    <root>/blobs/<algorithm>/<hex>   whole, verified, read-only, never changed again
    <root>/ingest/<random>           being written; what a crash leaves here goes at the next start
    <root>/uploads/<id>              being written under a name, resumable

The directory is the truth: `has` is one `stat`, `walk` reads the directory, and nothing has to be rebuilt after a
crash. SQLite holds only what the disk cannot say: which blobs were collected, when and why, so that "not found"
can be explained. Methods are synchronous and may be called from any thread.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kestrel.base.db import Database
from kestrel.base.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted
from kestrel.base.files import private_directory, sync_directory
from kestrel.content.ingest import ContentWriter, Upload, is_abandoned
from kestrel.content.leases import Lease, Leases
from kestrel.oci.digest import DEFAULT_ALGORITHM, Digest, Hasher

READ_LIMIT = 32 * 1024 * 1024
"""Most bytes `read` takes into memory unless told otherwise; documents are far smaller, layers are streamed."""

_ALGORITHMS = ("sha256", "sha512")
_UPLOAD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_MIGRATIONS = {
    "content-1-collected": """
        CREATE TABLE collected (
            digest TEXT PRIMARY KEY,
            size INTEGER NOT NULL,
            reason TEXT NOT NULL,
            moment REAL NOT NULL
        ) WITHOUT ROWID
    """,
    "content-2-collected-by-moment": "CREATE INDEX collected_moment ON collected (moment)",
}
_COLLECTED_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Blob:
    """What the directory says of one blob. `touched` is when it was last written, in seconds since the epoch."""

    digest: Digest
    size: int
    touched: float


class Store:
    """Blobs under one directory. One daemon owns it; a second `Store` on the same root in another process may read."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = Path(root)
        self._database = database
        self._leases = Leases()
        self._hashers: dict[str, Hasher] = {}
        self._blobs = {each: private_directory(self.root / "blobs" / each) for each in _ALGORITHMS}
        self._ingest = private_directory(self.root / "ingest")
        self._uploads = private_directory(self.root / "uploads")
        database.migrate(_MIGRATIONS)
        self._clear_ingest()

    # -- reading

    def path(self, digest: Digest) -> Path:
        """Return where the blob is, or would be."""
        return self._blobs[digest.algorithm] / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here; a lease that is open now keeps it."""
        with self._leases.lock:
            if not self.path(digest).exists():
                return False
            self._leases.touch(digest)
            return True

    def size(self, digest: Digest) -> int:
        """Return the number of bytes; a lease that is open now keeps them. Raises NotFound."""
        with self._leases.lock:
            try:
                size = self.path(digest).stat().st_size
            except FileNotFoundError:
                raise self._missing(digest) from None
            self._leases.touch(digest)
            return size

    def open(self, digest: Digest) -> BinaryIO:
        """Open the blob for reading, unbuffered; raises NotFound. An open blob stays readable even if collected."""
        try:
            return self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise self._missing(digest) from None

    def read(self, digest: Digest, limit: int = READ_LIMIT) -> bytes:
        """Return the whole blob, verified once more; for documents. Raises NotFound, DataLoss, ResourceExhausted."""
        with self.open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ResourceExhausted(f"blob {digest} has {size} bytes, more than the {limit} allowed here")
            data = file.read()
        if Digest.of(data, digest.algorithm) != digest:
            raise DataLoss(f"blob {digest} is damaged on disk", hint="remove the image and pull it again")
        return data

    def walk(self) -> Iterator[Blob]:
        """Yield every blob on disk, in no order; blobs that come or go meanwhile may or may not appear."""
        for algorithm, directory in self._blobs.items():
            with os.scandir(directory) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield Blob(Digest(f"{algorithm}:{entry.name}"), status.st_size, status.st_mtime)

    def look(self, digests: Iterable[Digest]) -> Iterator[Blob]:
        """Yield those of the blobs that are here."""
        for digest in digests:
            try:
                status = self.path(digest).stat()
            except FileNotFoundError:
                continue
            yield Blob(digest, status.st_size, status.st_mtime)

    def usage(self) -> int:
        """Return the bytes of all blobs and of what is being written, as `du --apparent-size` counts them."""
        total = sum(blob.size for blob in self.walk())
        for directory in (self._ingest, self._uploads):
            with os.scandir(directory) as entries:
                total += sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        return total

    # -- writing

    def writer(self, expected: Digest | None = None, size: int | None = None) -> ContentWriter:
        """Begin a blob. With `expected` or `size`, anything else is refused at the latest by `commit`."""
        return ContentWriter(self, self._ingest / os.urandom(12).hex(), expected=expected, size=size)

    def put(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Store bytes in memory; returns their digest. What is already here is not written again."""
        digest = Digest.of(data, expected.algorithm if expected else DEFAULT_ALGORITHM)
        if expected is not None and digest != expected:
            raise DataLoss(f"expected {expected}, but the {len(data)} bytes have {digest}")
        if self.has(digest):
            self.touch(digest)
            return digest
        with self.writer(digest, len(data)) as writer:
            writer.write(data)
            return writer.commit()

    def touch(self, digest: Digest) -> None:
        """Make the blob young again, so that a collection with a grace period lets it be."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            raise self._missing(digest) from None

    def delete(self, digest: Digest) -> bool:
        """Remove a blob now, whoever needs it; returns whether it was here. Collections go through `gc.sweep`."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def lease(self) -> Lease:
        """Open a lease: blobs made or seen until it closes are not garbage."""
        return self._leases.open()

    # -- named uploads

    def upload(self, upload_id: str, *, algorithm: str = DEFAULT_ALGORITHM, create: bool = True) -> Upload:
        """Open the upload of that id at its end. Raises Conflict while another holds it, NotFound without `create`."""
        path = self.upload_path(upload_id)
        if not create and not path.exists():
            raise NotFound(f"no such upload: {upload_id}")
        return Upload(self, upload_id, path, self._hashers.pop(upload_id, None), algorithm)

    def has_upload(self, upload_id: str) -> bool:
        """Whether an upload of that id was begun and neither committed nor aborted."""
        return self.upload_path(upload_id).exists()

    def uploads(self) -> list[str]:
        """Return the ids of all unfinished uploads."""
        return sorted(os.listdir(self._uploads))

    def expire_uploads(self, age: float) -> list[str]:
        """Remove uploads nobody wrote to for `age` seconds; returns their ids."""
        expired = []
        for upload_id in self.uploads():
            path = self._uploads / upload_id
            if is_abandoned(path) and path.stat().st_mtime < time.time() - age:
                path.unlink(missing_ok=True)
                self.forget_upload(upload_id)
                expired.append(upload_id)
        return expired

    def remember_upload(self, upload_id: str, hasher: Hasher | None) -> None:
        """Keep the running hash of an upload that pauses."""
        if hasher:
            self._hashers[upload_id] = hasher

    def forget_upload(self, upload_id: str) -> None:
        """Drop the running hash of an upload that is over."""
        self._hashers.pop(upload_id, None)

    # -- for the writers and the collector of this package

    def adopt(self, fd: int, path: Path, digest: Digest) -> None:
        """Give a verified temporary its final name, durably. An equal blob that is already here is replaced."""
        os.fchmod(fd, 0o444)
        os.fsync(fd)
        target = self.path(digest)
        with self._leases.lock:
            os.rename(path, target)
            self._leases.touch(digest)
        sync_directory(target.parent)

    def discard(self, blob: Blob, keep: "set[Digest]") -> bool:
        """Remove a blob unless it is in `keep`; returns whether it went.

        `keep` is the collector's own lease, so whatever anybody makes or sees until this moment is in it.
        """
        with self._leases.lock:
            if blob.digest in keep:
                return False
            return self.delete(blob.digest)

    def protected(self) -> "set[Digest]":
        """Return what open leases hold."""
        return self._leases.held()

    def record_collected(self, blobs: "list[tuple[Blob, str]]") -> None:
        """Write down what a collection took and why; the oldest records go."""
        now = time.time()
        with self._database.transaction(durable=False) as connection:  # a record that is lost is only missed
            connection.executemany(
                "INSERT OR REPLACE INTO collected VALUES (?, ?, ?, ?)",
                [(blob.digest, blob.size, reason, now) for blob, reason in blobs],
            )
            connection.execute(
                "DELETE FROM collected WHERE moment <"
                " (SELECT moment FROM collected ORDER BY moment DESC LIMIT 1 OFFSET ?)",
                (_COLLECTED_KEPT,),
            )

    def upload_path(self, upload_id: str) -> Path:
        """Return where the bytes of an upload are while it is not finished."""
        if not _UPLOAD_ID.fullmatch(upload_id):
            raise InvalidArgument(f"invalid upload id {upload_id[:80]!r}")
        return self._uploads / upload_id

    def _clear_ingest(self) -> None:
        for name in os.listdir(self._ingest):
            if is_abandoned(self._ingest / name):
                (self._ingest / name).unlink(missing_ok=True)

    def _missing(self, digest: Digest) -> NotFound:
        rows = self._database.query("SELECT reason, moment FROM collected WHERE digest = ?", (digest,))
        hint = None
        if rows:
            when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(rows[0]["moment"]))
            hint = f"it was collected at {when}: {rows[0]['reason']}"
        return NotFound(f"blob {digest} is not in the store", hint=hint, digest=digest)
