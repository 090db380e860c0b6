"""What both snapshotters share: names, rows, durability, snapshots; only the form of a layer differs.

    <root>/layers/<algorithm>/<hex>/       one layer, in a form its snapshotter knows
    <root>/layers/new/<random>/            being made
    <root>/snapshots/<key>/{upper,work}    what was written on top
    <root>/trash/<random>                  being removed
    <root>/empty                           the lower directory of an image without layers

A layer appears by one rename, after its digest was verified, and leaves by one rename; what a crash leaves in `new`
and `trash` goes at the next start. Rows in SQLite say what is complete: a directory without a row was never finished.

Durability. Syncing a layer takes seconds while somebody waits for a pull (a complaint about every engine), and it is
not needed: a layer can be made again from its blob, which is synced. So a layer is recorded with the boot it was
written in. Killing the process loses nothing, the page cache stays; after a restart of the machine, layers that were
never `settle`d (synced, off the critical path) are distrusted, dropped, and made again when they are needed.
"""

import json
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kestrel.archive.compression import LayerReader, LayerWriter
from kestrel.archive.diff import Diffed, diff
from kestrel.archive.disk import disk_errors
from kestrel.archive.entries import Entry, Source
from kestrel.archive.trees import remove_tree
from kestrel.archive.writer import Sink
from kestrel.base.db import Database
from kestrel.base.errors import AlreadyExists, Conflict, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from kestrel.base.files import private_directory, sync_directory
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.digest import Digest, Hasher
from kestrel.snapshots.snapshotter import Committed, Usage

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")
_STACK_LIMIT: Final = 500
"""Overlayfs takes at most this many lower layers (fs/overlayfs/params.h, OVL_MAX_STACK)."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MIGRATIONS: Final = {
    "snapshots-1-overlay": """
        CREATE TABLE layer (
            diff_id TEXT PRIMARY KEY,
            size INTEGER NOT NULL,
            boot TEXT NOT NULL,
            created REAL NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE snapshot (
            key TEXT PRIMARY KEY,
            layers TEXT NOT NULL,
            created REAL NOT NULL
        ) WITHOUT ROWID
    """,
}
_SETTLED: Final = "settled"


class Stack:
    """A snapshotter but for the form of its layers, which the methods from `_make` to `_sync` are about."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = Path(root)
        self._database = database
        self._layers = private_directory(self.root / "layers")
        self._new = private_directory(self._layers / "new")
        self._snapshots = private_directory(self.root / "snapshots")
        self._trash = private_directory(self.root / "trash")
        self._empty = self.root / "empty"
        self._empty.mkdir(mode=0o755, exist_ok=True)
        for algorithm in ("sha256", "sha512"):
            private_directory(self._layers / algorithm)
        self._boot = _BOOT_ID.read_text().strip()
        self._lock = threading.RLock()
        database.migrate(_MIGRATIONS)
        self._known: set[Digest] = set()
        self._recover()

    # -- layers

    def has_layer(self, diff_id: Digest) -> bool:
        """Whether the layer is here, whole."""
        return diff_id in self._known

    def add_layer(
        self, diff_id: Digest, tar: Source, *, kept: "Path | None" = None, members: "Sequence[Entry] | None" = None
    ) -> None:
        """Make a layer; see `Snapshotter.add_layer`. A `LayerReader` is read through, so its digests are final."""
        if self.has_layer(diff_id):
            return
        with self._making() as new:
            known = self._make_known(new, kept, members) if kept is not None and members is not None else None
            if known is not None:
                self._place(new, diff_id, known)
                return
            reader = tar if isinstance(tar, LayerReader) else LayerReader(tar, diff_algorithm=diff_id.algorithm)
            size = self._make(reader, new, kept)
            actual = reader.plain.digest()
            if actual != diff_id:
                raise DataLoss(f"the layer should be {diff_id} when unpacked, but is {actual}")
            self._place(new, diff_id, size)

    def layers(self) -> list[Digest]:
        """Return the diff_ids of all layers."""
        return sorted(self._known)

    def layer_size(self, diff_id: Digest) -> int:
        """Return the bytes of file data in the layer."""
        rows = self._database.query("SELECT size FROM layer WHERE diff_id = ?", (diff_id,))
        if not rows:
            raise _no_layer(diff_id)
        return int(rows[0]["size"])

    def layer_usage(self, diff_id: Digest) -> Usage:
        """Return the room the layer takes, by looking at every file of it."""
        self._check(diff_id)
        return usage(self._home(diff_id))

    def remove_layer(self, diff_id: Digest) -> None:
        """Remove a layer nothing stands on."""
        with self._lock:
            if not self.has_layer(diff_id):
                return
            users = [key for key, layers in self._bases().items() if diff_id in layers]
            if users:
                raise Conflict(
                    f"layer {diff_id.short} is in use by {len(users)} snapshot{'s' if len(users) > 1 else ''}",
                    hint=f"remove {users[0][:12]} first",
                )
            self._known.discard(diff_id)
            self._database.execute("DELETE FROM layer WHERE diff_id = ?", (diff_id,))
            self._forget(diff_id)
            doomed = self._discard(self._home(diff_id))
        remove_tree(doomed)

    def settle(self) -> int:
        """Make every layer survive a power cut; returns how many were made durable. Slow: call it off the path."""
        rows = self._database.query("SELECT diff_id FROM layer WHERE boot = ?", (self._boot,))
        waiting = [Digest(row["diff_id"]) for row in rows]
        if waiting:
            self._sync([self._home(diff_id) for diff_id in waiting])
            with self._database.transaction() as connection:
                connection.executemany(
                    "UPDATE layer SET boot = ? WHERE diff_id = ?", [(_SETTLED, diff_id) for diff_id in waiting]
                )
        return len(waiting)

    # -- snapshots

    def prepare(self, key: str, layers: Sequence[Digest]) -> Rootfs:
        """Make a writable snapshot; its top directory has the owner and mode of the topmost layer's."""
        home = self._snapshot_home(key)
        with self._lock, disk_errors(self.root):
            lowers = self._lowers(layers)
            if home.exists():
                raise AlreadyExists(f"snapshot {key} exists already")
            for name in ("upper", "work"):
                (home / name).mkdir(parents=True, mode=0o700)
            mode, uid, gid = self._top_of(lowers[0])
            os.chown(home / "upper", uid, gid)
            os.chmod(home / "upper", mode)
            self._database.execute(
                "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?)", (key, json.dumps(list(layers)), time.time())
            )
        return self._plan(home, lowers)

    def rootfs(self, key: str) -> Rootfs:
        """Return the plan of a snapshot."""
        return self._plan(self._existing(key), self._lowers(self._bases_of(key)))

    def view(self, layers: Sequence[Digest]) -> Rootfs:
        """Return a read-only plan."""
        return Rootfs(lowers=self._lowers(layers))

    def commit(
        self, key: str, sink: Sink, *, clamp: int | None = None, consume: bool = False, users: range = range(0)
    ) -> Committed:
        """Write the changes as a tar; with `consume` make the layer of it at once, and throw the snapshot away."""
        home = self._existing(key)
        hashing = Hashing(sink)
        if not consume:
            with disk_errors(self.root):
                written = diff(home / "upper", hashing, clamp=clamp, users=users)
            return Committed(hashing.digest(), written.size, written.entries)
        with self._making() as new:
            written, size = self._consume(home / "upper", hashing, new, clamp, users)
            diff_id = hashing.digest()
            self._place(new, diff_id, size)
        self.remove(key)
        return Committed(diff_id, written.size, written.entries)

    def remove(self, key: str) -> None:
        """Throw a snapshot away."""
        home = self._snapshot_home(key)
        with self._lock:
            # After a power cut the row may be back without its directory: a start of ours drops it then.
            self._database.execute("DELETE FROM snapshot WHERE key = ?", (key,), durable=False)
            if not home.exists():
                return
            doomed = self._discard(home)
        remove_tree(doomed)

    def usage(self, key: str) -> Usage:
        """Return the room of what was written."""
        return usage(self._existing(key))

    def keys(self) -> list[str]:
        """Return the keys of all snapshots."""
        return [row["key"] for row in self._database.query("SELECT key FROM snapshot ORDER BY key")]

    def bases(self, key: str) -> tuple[Digest, ...]:
        """Return the layers a snapshot stands on, the lowest first; raises NotFound."""
        self._existing(key)
        return self._bases_of(key)

    # -- inside

    def _make(self, reader: LayerReader, new: Path, kept: "Path | None") -> int:
        """Make a layer in the directory `new`, reading to the end; returns the bytes of file data."""
        raise NotImplementedError

    def _make_known(self, new: Path, kept: Path, members: "Sequence[Entry]") -> "int | None":
        """Make a layer in `new` of a plain tar whose members are known; None for one who has to read it."""
        _ = new, kept, members
        return None

    def _consume(
        self, upper: Path, sink: "Hashing", new: Path, clamp: "int | None", users: range
    ) -> tuple[Diffed, int]:
        """Write `upper` as a tar and make a layer of it in `new`; returns what was written and the bytes of data."""
        raise NotImplementedError

    def _usable(self, home: Path) -> bool:
        """Whether there is a layer in a form this can mount."""
        raise NotImplementedError

    def _lower(self, diff_id: Digest) -> Lower:
        """Return how to mount a layer."""
        raise NotImplementedError

    def _top_of(self, lower: Lower) -> tuple[int, int, int]:
        """Return mode, uid and gid of a layer's top directory."""
        status = os.stat(lower.path)
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def _sync(self, homes: "list[Path]") -> None:
        """Make layers durable."""
        raise NotImplementedError

    def _forget(self, diff_id: Digest) -> None:
        """Let go of what is held of a layer that is being removed."""

    @contextmanager
    def _making(self) -> "Iterator[Path]":
        """Give a fresh directory to make a layer in; what is left there at the end goes."""
        new = self._new / os.urandom(8).hex()
        try:
            with disk_errors(self.root):
                new.mkdir(mode=0o700)
                yield new
        finally:
            if new.exists():
                remove_tree(new)

    def _place(self, new: Path, diff_id: Digest, size: int) -> None:
        """Give a finished layer its name and write that it is whole."""
        home = self._home(diff_id)
        with self._lock:
            if self.has_layer(diff_id):
                return  # somebody else was faster; the caller removes ours
            os.rename(new, home)
            sync_directory(home.parent)
            self._database.execute(
                "INSERT OR REPLACE INTO layer VALUES (?, ?, ?, ?)", (diff_id, size, self._boot, time.time())
            )
            self._known.add(diff_id)

    def _lowers(self, layers: Sequence[Digest]) -> tuple[Lower, ...]:
        if len(layers) > _STACK_LIMIT:
            raise FailedPrecondition(
                f"the image has {len(layers)} layers, overlayfs takes {_STACK_LIMIT}", hint="merge some RUN steps"
            )
        for diff_id in layers:
            self._check(diff_id)
        # Overlayfs refuses a layer that it has already (ELOOP). Of one that stands in a stack twice the upper does
        # all that the lower would have done, so that one is left out.
        lowers = tuple(self._lower(diff_id) for diff_id in dict.fromkeys(reversed(layers)))
        return lowers or (Lower(path=str(self._empty)),)

    def _plan(self, home: Path, lowers: tuple[Lower, ...]) -> Rootfs:
        return Rootfs(lowers=lowers, upper=str(home / "upper"), work=str(home / "work"))

    def _check(self, diff_id: Digest) -> None:
        if not self.has_layer(diff_id):
            raise _no_layer(diff_id)

    def _home(self, diff_id: Digest) -> Path:
        return self._layers / diff_id.algorithm / diff_id.hex

    def _snapshot_home(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InvalidArgument(f"invalid snapshot key {key[:80]!r}", hint="use letters, digits, _ . and -")
        return self._snapshots / key

    def _existing(self, key: str) -> Path:
        home = self._snapshot_home(key)
        if not home.exists():
            raise NotFound(f"no such snapshot: {key}")
        return home

    def _bases(self) -> dict[str, tuple[Digest, ...]]:
        rows = self._database.query("SELECT key, layers FROM snapshot")
        return {row["key"]: tuple(Digest(each) for each in json.loads(row["layers"])) for row in rows}

    def _bases_of(self, key: str) -> tuple[Digest, ...]:
        rows = self._database.query("SELECT layers FROM snapshot WHERE key = ?", (key,))
        if not rows:
            raise NotFound(f"no such snapshot: {key}")
        return tuple(Digest(each) for each in json.loads(rows[0]["layers"]))

    def _discard(self, path: Path) -> Path:
        """Move something out of sight in one step; the caller removes what is returned, without the lock."""
        doomed = self._trash / os.urandom(8).hex()
        os.rename(path, doomed)
        return doomed

    def _recover(self) -> None:
        """Bring directories and rows together after whatever happened before."""
        for leftover in (*self._new.iterdir(), *self._trash.iterdir()):
            remove_tree(leftover)
        for row in self._database.query("SELECT diff_id, boot FROM layer"):
            diff_id = Digest(row["diff_id"])
            if row["boot"] in (self._boot, _SETTLED) and self._usable(self._home(diff_id)):
                self._known.add(diff_id)
            else:
                self._database.execute("DELETE FROM layer WHERE diff_id = ?", (diff_id,))
        for algorithm in ("sha256", "sha512"):
            for home in (self._layers / algorithm).iterdir():
                if Digest(f"{algorithm}:{home.name}") not in self._known:
                    remove_tree(self._discard(home))
        keys = set(self.keys())
        for home in self._snapshots.iterdir():
            if home.name not in keys:
                remove_tree(self._discard(home))
            keys.discard(home.name)
        for key in keys:
            self._database.execute("DELETE FROM snapshot WHERE key = ?", (key,))


class Hashing:
    """Digests a tar on its way to the sink, unless the sink does so itself."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._hasher = None if isinstance(sink, LayerWriter) else Hasher()

    def write(self, data: "bytes | bytearray | memoryview", /) -> object:
        """Take bytes."""
        if self._hasher:
            self._hasher.update(data)
        return self.sink.write(data)

    def digest(self) -> Digest:
        """Return the digest of what was written."""
        if isinstance(self.sink, LayerWriter):
            return self.sink.plain.digest()
        return self._hasher.digest() if self._hasher else Hasher().digest()


def usage(path: Path) -> Usage:
    """Return the room of a tree: allocated blocks (`man 2 stat`, st_blocks of 512 bytes), an inode counted once."""
    size = 0
    seen: set[int] = set()
    waiting = [os.fspath(path)]
    status = os.lstat(path)
    size, seen = status.st_blocks * 512, {status.st_ino}
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    size += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
    return Usage(size, len(seen))


def _no_layer(diff_id: Digest) -> NotFound:
    return NotFound(f"layer {diff_id} is not unpacked here", diff_id=diff_id)
