"""Snapshots and layer blobs as the solver uses them: a writable root, then a layer, or nothing left at all.

A layer's blob is its plain tar, so its digest and its diff_id are one and nothing is compressed to be thrown away:
what is pushed elsewhere can be compressed then.
"""

from collections.abc import Sequence
from typing import BinaryIO, Final, Protocol

from kestrel.archive.diff import diff
from kestrel.base.ids import new_id, short
from kestrel.build.cache import Layer
from kestrel.content import Store
from kestrel.linux.rootfs import Rootfs
from kestrel.oci import media_types
from kestrel.oci.digest import Digest

PREFIX: Final = "build-"
"""Keys of snapshots that belong to a running build; one that exists at start was left by a killed daemon."""


class Snapshots(Protocol):
    """What the builder needs of the snapshotter."""

    def has_layer(self, diff_id: Digest) -> bool:
        """Tell whether a layer can be mounted."""
        ...

    def add_layer(self, diff_id: Digest, tar: BinaryIO) -> object:
        """Make a layer mountable from its plain tar, verified."""
        ...

    def prepare(self, key: str, layers: Sequence[Digest]) -> Rootfs:
        """Make a writable top on layers, the bottom first."""
        ...

    def view(self, layers: Sequence[Digest]) -> Rootfs:
        """Return a read-only plan."""
        ...

    def remove(self, key: str) -> object:
        """Remove a writable top."""
        ...

    def keys(self) -> Sequence[str]:
        """List the writable tops."""
        ...


class Layers:
    """Writable roots for steps, and what becomes of them. Methods block; call them in worker threads."""

    def __init__(self, snapshots: Snapshots, content: Store) -> None:
        self._snapshots = snapshots
        self._content = content

    def usable(self, layer: Layer) -> bool:
        """Tell whether a record's layer is still there, as blob and mountable."""
        if not layer.diff_id:
            return True
        return self._content.has(Digest.parse(layer.blob)) and self._snapshots.has_layer(Digest.parse(layer.diff_id))

    def begin(self, layers: Sequence[Digest]) -> tuple[str, Rootfs]:
        """Return the key and the plan of a fresh writable root."""
        key = f"{PREFIX}{short(new_id())}"
        return key, self._snapshots.prepare(key, layers)

    def view(self, layers: Sequence[Digest]) -> Rootfs:
        """Return the plan of a root that nothing is written to."""
        return self._snapshots.view(layers)

    def commit(self, rootfs: Rootfs, epoch: int) -> Layer:
        """Make a layer of what was written, with no file later than `epoch`; an empty record when nothing was."""
        with self._content.writer() as writer:
            written = diff(rootfs.upper, writer, clamp=epoch * 1_000_000_000)
            if not written.entries:
                return Layer()
            digest = writer.commit()
        if not self._snapshots.has_layer(digest):
            with self._content.open(digest) as tar:
                self._snapshots.add_layer(digest, tar)
        return Layer(diff_id=digest, blob=digest, media_type=media_types.OCI_LAYER, size=written.size)

    def discard(self, key: str) -> None:
        """Remove a writable root, whatever is in it."""
        self._snapshots.remove(key)

    def discard_strays(self) -> None:
        """Remove what a killed daemon left."""
        for key in self._snapshots.keys():  # noqa: SIM118 - a method of the snapshotter, not a mapping
            if key.startswith(PREFIX):
                self._snapshots.remove(key)
