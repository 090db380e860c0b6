"""Snapshots and layer blobs as the solver uses them: a writable root, then a layer, or nothing left at all.

A layer's blob is its plain tar, so its digest and its diff_id are one and nothing is compressed to be thrown away:
what is pushed elsewhere can be compressed then.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from kestrel.archive.compression import LayerReader
from kestrel.archive.threaded import WriteBehind
from kestrel.base.ids import new_id, short
from kestrel.build.cache import Layer
from kestrel.build.direct import Donor, Item, TarOf
from kestrel.build.leaks import Guard, Key, Needle, Scan, fingerprint, guarded, keys_in
from kestrel.content import Store
from kestrel.linux.rootfs import Rootfs
from kestrel.oci import media_types
from kestrel.oci.digest import Digest
from kestrel.snapshots import Snapshotter

PREFIX: Final = "build-"
"""Keys of snapshots that belong to a running build; one that exists at start was left by a killed daemon."""


def plain_directory(view: Rootfs) -> str:
    """Return the path of what a plan shows where that is a directory of this host as it is, else nothing."""
    return view.lowers[0].path if len(view.lowers) == 1 and view.lowers[0].kind != "erofs" else ""


class Layers:
    """Writable roots for steps, and what becomes of them. Methods block; call them in worker threads."""

    def __init__(self, snapshots: Snapshotter, content: Store) -> None:
        self._snapshots = snapshots
        self._content = content
        self._searched: set[tuple[str, bytes]] = set()

    def usable(self, layer: Layer) -> bool:
        """Tell whether a record's layer can be used; one whose blob is here is made mountable again if it must."""
        if not layer.diff_id:
            return True
        blob, diff_id = Digest.parse(layer.blob), Digest.parse(layer.diff_id)
        if not self._content.has(blob):
            return False
        if not self._snapshots.has_layer(diff_id):
            with self._content.open(blob) as tar:
                kept = self._content.path(blob) if blob == diff_id else None
                self._snapshots.add_layer(diff_id, tar, kept=kept)
        return True

    @staticmethod
    def key() -> str:
        """Return a key for a writable root that is to be."""
        return f"{PREFIX}{short(new_id())}"

    def begin(self, key: str, layers: Sequence[Digest]) -> Rootfs:
        """Make a fresh writable root, and return its plan."""
        return self._snapshots.prepare(key, layers)

    def view(self, layers: Sequence[Digest]) -> Rootfs:
        """Return the plan of a root that nothing is written to."""
        return self._snapshots.view(layers)

    def commit(
        self, key: str, rootfs: Rootfs, epoch: int, wanted: tuple[Needle, ...] = (), users: range = range(0)
    ) -> Layer:
        """Make a layer of what was written, with no file later than `epoch`; an empty record when nothing was.

        `users` are the host's numbers of the users that wrote it (`archive.shift`).
        Raises SecretLeaked when one of `wanted` is in it; then no layer is made.
        """
        if not os.listdir(rootfs.upper):
            return Layer()
        with self._content.writer() as writer:
            sink, clamp = guarded(writer, wanted), epoch * 1_000_000_000
            made = self._snapshots.commit(key, sink, clamp=clamp, consume=True, users=users)
            writer.commit(made.diff_id)
        digest = str(made.diff_id)
        self._searched.add((digest, fingerprint(wanted)))
        return Layer(diff_id=digest, blob=digest, media_type=media_types.OCI_LAYER, size=made.size)

    def write(
        self,
        items: Mapping[str, Item],
        wanted: tuple[Needle, ...] = (),
        earlier: Layer | None = None,
        scan: Scan | None = None,
    ) -> Layer:
        """Make a layer of items, without a writable root; an empty record when there are none.

        `earlier` is a layer that has many of the same files, most likely; `scan` gets the keys that are found.
        """
        if not items:
            return Layer()
        with ExitStack() as stack:
            donor = self._donor(earlier, stack)
            writer = stack.enter_context(self._content.writer())
            with WriteBehind(guarded(writer, wanted)) as sink:
                tar = TarOf(items, sink, donor, scan)
                tar.write()
            digest = writer.commit()
            self._searched.add((str(digest), fingerprint(wanted)))
            if scan is not None:
                scan.complete = True
        if not self._snapshots.has_layer(digest):
            with self._content.open(digest) as file:
                self._snapshots.add_layer(digest, file, kept=self._content.path(digest), members=tar.members)
        return Layer(diff_id=str(digest), blob=str(digest), media_type=media_types.OCI_LAYER, size=tar.size)

    def keys(self, layer: Layer) -> list[Key]:
        """Return the keys in a layer, by reading it."""
        with self._content.open(Digest.parse(layer.blob)) as file:
            return list(keys_in(LayerReader(file)))

    def search(self, layer: Layer, wanted: tuple[Needle, ...]) -> None:
        """Look for secrets in a layer that is here already, once for the same secrets. Raises SecretLeaked."""
        known = (layer.diff_id, fingerprint(wanted))
        if not wanted or known in self._searched:
            return
        guard = Guard(None, wanted)
        with self._content.open(Digest.parse(layer.blob)) as file:
            tar = LayerReader(file)
            while piece := tar.read():
                guard.write(piece)
        self._searched.add(known)

    def _donor(self, earlier: Layer | None, stack: ExitStack) -> Donor | None:
        if earlier is None or not earlier.blob or earlier.blob != earlier.diff_id:
            return None
        path = self._content.path(Digest.parse(earlier.blob))
        return stack.enter_context(Donor(path)) if path.exists() else None

    def discard(self, key: str) -> None:
        """Remove a writable root, whatever is in it, if it was made."""
        self._snapshots.remove(key)

    def discard_strays(self) -> None:
        """Remove what a killed daemon left."""
        for key in self._snapshots.keys():  # noqa: SIM118 - a method of the snapshotter, not a mapping
            if key.startswith(PREFIX):
                self._snapshots.remove(key)
