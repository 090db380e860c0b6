"""Images made here, layer by layer: a tar in the store, and the two documents that make it the top of an image."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kestrel.archive.compression import LayerReader
from kestrel.archive.entries import Source
from kestrel.archive.writer import Sink
from kestrel.base.errors import InvalidArgument
from kestrel.content import Store
from kestrel.oci import media_types
from kestrel.oci.config import History, ImageConfig, RootFS
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest

Write = Callable[[Sink], None]
"""Writes a plain tar."""
_PIECE = 1 << 20


def add_layer(
    content: Store, below: Sequence[Descriptor], config: ImageConfig, step: History, write: Write
) -> tuple[bytes, bytes]:
    """Store a layer and return manifest and configuration of the image that has it on top of others. Blocks."""
    layer = _stored(content, write)
    rootfs = RootFS(diff_ids=(*config.rootfs.diff_ids, layer.digest))
    data = msgspec.structs.replace(config, rootfs=rootfs, history=(*config.history, step)).encode()
    manifest = Manifest.of(Descriptor.of(media_types.OCI_CONFIG, data), (*below, layer))
    return manifest.encode(), data


def store_tar(content: Store, tar: Path, diff_id: Digest) -> Descriptor:
    """Take one plain tar into the store. Blocks. Raises InvalidArgument when it is another than was said."""

    def write(sink: Sink) -> None:
        with tar.open("rb", buffering=0) as file:
            _copy(file, sink)

    stored = _stored(content, write)
    if stored.digest != diff_id:
        raise InvalidArgument(f"the layer {tar.name} should be {diff_id}, but is {stored.digest}")
    return stored


def unpacked(source: Source) -> Write:
    """Return what writes a stranger's tar, plain or compressed, as a plain one."""
    return lambda sink: _copy(LayerReader(source), sink)


def _copy(source: Source, sink: Sink) -> None:
    while piece := source.read(_PIECE):
        sink.write(piece)


def _stored(content: Store, write: Write) -> Descriptor:
    with content.writer() as blob:
        write(blob)
        return Descriptor(media_type=media_types.OCI_LAYER, digest=blob.commit(), size=blob.size)
