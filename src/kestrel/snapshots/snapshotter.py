"""What every snapshotter does, told once.

A *layer* is a changeset in the form this machine mounts. It is named by its diff_id alone, the digest of its plain
tar, not by what lies beneath it: ten images that share a layer share the one on disk, and a layer can be made before
its parents are. A layer never changes. How it is kept is the snapshotter's business (a directory in overlay form,
or a tar with an EROFS index beside it); what leaves here is a `Rootfs`, a plan the runtime mounts.

A *snapshot* is a place to write on top of layers, under a key the caller chooses (a container's id, a build step's).

    add_layer ──▶ layer ──prepare(key)──▶ snapshot ──commit(key)──▶ a tar, and with consume=True a layer at once
                    │                        └──────remove(key)───▶ gone
                    ├──view()──▶ a read-only plan, nothing to clean up
                    └──remove_layer()──▶ gone, unless a snapshot stands on it (Conflict)

What must hold, and what `kestrel.testing.snapshot_suite` checks of each implementation:
  - `add_layer` verifies the digest, and either the whole layer is there afterwards or nothing, whenever the process
    is killed. Adding what is there already does nothing. Two callers at once is fine.
  - After a power cut a layer is whole or is not there: `has_layer` says no, and the caller adds it again from its blob.
  - A snapshot survives a restart with what was written to it, until it is removed.
  - `remove` of what is not there succeeds; everything else unknown is NotFound.

All methods are synchronous and may be called from any thread; long ones belong in `asyncio.to_thread`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kestrel.archive.entries import Entry, Source
from kestrel.archive.writer import Sink
from kestrel.linux.rootfs import Rootfs
from kestrel.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Usage:
    """Room on disk: bytes in allocated blocks, as `du` counts them, and inodes.

    `shared` of the bytes are a blob of the content store at the same time, and go only when both went.
    """

    size: int
    inodes: int
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """A changeset made of a snapshot: its diff_id, the bytes of its plain tar, and its members (0: nothing changed)."""

    diff_id: Digest
    size: int
    entries: int


class Snapshotter(Protocol):
    """Keeps layers and snapshots; see the module's story."""

    def has_layer(self, diff_id: Digest) -> bool:
        """Whether the layer can be mounted now."""
        ...

    def add_layer(
        self, diff_id: Digest, tar: Source, *, kept: "Path | None" = None, members: "Sequence[Entry] | None" = None
    ) -> None:
        """Make a layer of a tar stream (plain; gzip and zstd are recognised). Raises DataLoss for other content.

        `kept` names a file that holds just these bytes and never changes: one who keeps plain tars links it. Whoever
        wrote and hashed that file just now knows what is in it: with `members` it need not be read again.
        """
        ...

    def layers(self) -> list[Digest]:
        """Return the diff_ids of all layers."""
        ...

    def layer_size(self, diff_id: Digest) -> int:
        """Return the bytes of file data in the layer; raises NotFound."""
        ...

    def layer_usage(self, diff_id: Digest) -> Usage:
        """Return the room the layer takes; raises NotFound."""
        ...

    def remove_layer(self, diff_id: Digest) -> None:
        """Remove a layer; Conflict while a snapshot stands on it. Gone already is fine."""
        ...

    def settle(self) -> int:
        """Make every layer survive a power cut; returns how many were made durable. Slow: call it off the path."""
        ...

    def prepare(self, key: str, layers: Sequence[Digest]) -> Rootfs:
        """Make a writable snapshot on layers, the lowest first. AlreadyExists; NotFound for a missing layer."""
        ...

    def rootfs(self, key: str) -> Rootfs:
        """Return the plan of a snapshot; raises NotFound."""
        ...

    def view(self, layers: Sequence[Digest]) -> Rootfs:
        """Return a read-only plan of layers, the lowest first; NotFound for a missing one."""
        ...

    def commit(
        self, key: str, sink: Sink, *, clamp: int | None = None, consume: bool = False, users: range = range(0)
    ) -> Committed:
        """Write what changed in the snapshot as a plain tar, times no later than `clamp` nanoseconds.

        `users` are the host's numbers of those of the container that wrote there; the layer has its own.

        With `consume` the snapshot itself becomes the layer, without unpacking anything, and its key is free again;
        nobody may have it mounted then.
        """
        ...

    def remove(self, key: str) -> None:
        """Throw a snapshot away. Gone already is fine."""
        ...

    def usage(self, key: str) -> Usage:
        """Return the room of what was written to a snapshot; raises NotFound."""
        ...

    def keys(self) -> list[str]:
        """Return the keys of all snapshots."""
        ...
