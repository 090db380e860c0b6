"""The compressed forms of a layer that was made here.

Layers that are built, committed or imported stay the plain tars that are mounted: on this machine nobody needs them
smaller. A registry elsewhere gets them compressed, and so does an archive that is asked for so. That is done when it
is first wanted and remembered by diff_id, so that every push of the layer, in whatever image, names the same blob. The
compressed bytes themselves may be collected: the encoder makes the same again, and the digest proves it. Another
version of the encoder may not; then the layer has a new compressed form, as a layer that was never pushed has.
"""

from typing import BinaryIO

import msgspec

from kestrel.archive.compression import ENCODERS, LayerWriter
from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.images.model import Progress, Report
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest

_PIECE = 1 << 20
_MIGRATIONS = {
    "packed-1": """
        CREATE TABLE packed (
            diff_id TEXT PRIMARY KEY,
            digest TEXT NOT NULL,
            size INTEGER NOT NULL,
            encoder TEXT NOT NULL
        ) WITHOUT ROWID
    """,
    "packed-2": """
        CREATE TABLE packed_by (
            diff_id TEXT NOT NULL,
            encoder TEXT NOT NULL,
            digest TEXT NOT NULL,
            size INTEGER NOT NULL,
            PRIMARY KEY (diff_id, encoder)
        ) WITHOUT ROWID;
        INSERT INTO packed_by SELECT diff_id, encoder, digest, size FROM packed;
        DROP TABLE packed
    """,
}


class Packed:
    """Which compressed blob stands for which plain layer."""

    def __init__(self, content: Store, database: Database) -> None:
        self._content = content
        self._database = database
        database.migrate(_MIGRATIONS)

    def manifest(
        self, data: bytes, media_type: str, report: Report, compression: str = "gzip"
    ) -> tuple[Descriptor, bytes]:
        """Return what to hand on for a manifest stored here: the same, with plain layers in compressed form. Blocks.

        A manifest without plain layers is returned as it is, byte for byte. The caller holds a lease.
        """
        document = Manifest.decode(data, media_type)
        layers = tuple(self._layer(layer, report, compression) for layer in document.layers)
        if layers != document.layers:
            data = msgspec.structs.replace(document, layers=layers).encode()
        return Descriptor.of(media_type, data), data

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob of such a manifest; compressed bytes that were collected are made again. Blocks."""
        if not self._content.has(digest):
            for row in self._database.query("SELECT diff_id, encoder FROM packed_by WHERE digest = ?", (digest,)):
                compression = next((name for name, who in ENCODERS.items() if who == row["encoder"]), "")
                if compression:
                    self._compress(Digest(row["diff_id"]), compression, digest)
        return self._content.open(digest)

    def _layer(self, layer: Descriptor, report: Report, compression: str) -> Descriptor:
        plain = layer.digest
        if layer.media_type != media_types.OCI_LAYER or not self._content.has(plain):
            return layer
        kind, encoder = media_types.layer_type(compression), ENCODERS[compression]
        made = "SELECT digest, size FROM packed_by WHERE diff_id = ? AND encoder = ?"
        for row in self._database.query(made, (plain, encoder)):
            return Descriptor(media_type=kind, digest=Digest(row["digest"]), size=row["size"])
        report(Progress(plain.short, "compressing", 0, layer.size))
        digest, size = self._compress(plain, compression)
        values = (plain, encoder, digest, size)
        self._database.execute("INSERT OR REPLACE INTO packed_by VALUES (?, ?, ?, ?)", values)
        return Descriptor(media_type=kind, digest=digest, size=size)

    def _compress(self, plain: Digest, compression: str, expected: "Digest | None" = None) -> tuple[Digest, int]:
        with self._content.writer(expected) as blob, self._content.open(plain) as tar:
            layer = LayerWriter(blob, compression)
            while piece := tar.read(_PIECE):
                layer.write(piece)
            layer.close()
            return blob.commit(), blob.size
