"""Stored layers to mountable ones: decompressed once, both digests checked."""

import asyncio

from kestrel.archive.compression import LayerReader
from kestrel.base.errors import DataLoss, KestrelError
from kestrel.content import Follower, Store
from kestrel.images.flights import together
from kestrel.images.model import Image, Progress, Report, silent
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.snapshots import Snapshotter


def unpack_layer(content: Store, snapshots: Snapshotter, blob: Descriptor, diff_id: Digest) -> None:
    """Make one layer mountable from its blob. Raises DataLoss when either digest is wrong."""
    if snapshots.has_layer(diff_id):
        return
    with content.open(blob.digest) as file:
        reader = LayerReader(file, algorithm=blob.digest.algorithm, diff_algorithm=diff_id.algorithm)
        snapshots.add_layer(diff_id, reader, kept=content.path(blob.digest) if blob.digest == diff_id else None)
    if reader.compressed.digest() != blob.digest:
        snapshots.remove_layer(diff_id)
        raise DataLoss(f"blob {blob.digest} is damaged on disk", hint="remove the image and pull it again")


def unpack_arriving(snapshots: Snapshotter, arriving: Follower, diff_id: Digest) -> None:
    """Make a layer mountable while its blob is still on the way; what is written of it is checked there."""
    with arriving:
        snapshots.add_layer(diff_id, LayerReader(arriving, diff_algorithm=diff_id.algorithm, verified=True))


async def ensure_unpacked(content: Store, snapshots: Snapshotter, image: Image, report: Report = silent) -> None:
    """Make every layer of an image mountable, two at a time."""
    limit = asyncio.Semaphore(2)

    async def one(blob: Descriptor, diff_id: Digest) -> None:
        async with limit:
            report(Progress(blob.digest.short, "extracting", 0, blob.size))
            try:
                await asyncio.to_thread(unpack_layer, content, snapshots, blob, diff_id)
            except KestrelError as error:
                raise type(error)(
                    f"layer {blob.digest.short} of the image {_called(image)} cannot be unpacked: {error.message}",
                    hint=error.hint,
                ) from error
            report(Progress(blob.digest.short, "extracted", blob.size, blob.size))

    missing = {d: b for b, d in zip(image.blobs, image.layers, strict=True) if not snapshots.has_layer(d)}
    await together(one(blob, diff_id) for diff_id, blob in missing.items())


def _called(image: Image) -> str:
    return image.names[0] if image.names else image.id.short
