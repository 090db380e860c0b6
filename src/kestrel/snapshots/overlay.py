"""Layers as directories that overlayfs stacks: for every kernel, and for those that cannot mount an index of a tar.

<root>/layers/<algorithm>/<hex>/fs     one layer, whiteouts in overlayfs' own form
"""

import os
from pathlib import Path

from kestrel.archive.apply import apply
from kestrel.archive.compression import LayerReader
from kestrel.archive.diff import Diffed, diff
from kestrel.archive.threaded import ReadAhead
from kestrel.linux.rootfs import Lower
from kestrel.oci.digest import Digest
from kestrel.snapshots.freeze import freeze
from kestrel.snapshots.stack import Hashing, Stack


class Overlay(Stack):
    """The snapshotter that unpacks. Fulfils `Snapshotter`."""

    def _make(self, reader: LayerReader, new: Path, kept: "Path | None") -> int:  # noqa: ARG002 - no tar is kept here
        (new / "fs").mkdir(mode=0o755)
        (new / "fs").chmod(0o755)
        with ReadAhead(reader) as ahead:
            return apply(ahead, new / "fs").size

    def _consume(self, upper: Path, sink: Hashing, new: Path, clamp: "int | None", users: range) -> tuple[Diffed, int]:
        written = diff(upper, sink, clamp=clamp, users=users)
        size = freeze(upper, clamp=clamp, users=users)
        os.rename(upper, new / "fs")
        return written, size

    def _usable(self, home: Path) -> bool:
        return (home / "fs").is_dir()

    def _lower(self, diff_id: Digest) -> Lower:
        return Lower(path=str(self._home(diff_id) / "fs"))

    def _sync(self, homes: "list[Path]") -> None:  # noqa: ARG002 - ten thousand files each: all at once is faster
        os.sync()
