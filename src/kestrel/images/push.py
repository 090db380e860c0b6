"""From an image here to a registry: blobs first, three at a time, the manifest last, byte for byte as it is stored."""

import asyncio
from collections.abc import Callable, Sequence
from typing import BinaryIO, Final

from kestrel.content import Store
from kestrel.images.flights import together
from kestrel.images.model import ImagePusher, Progress, Report
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.oci.reference import Reference

PARALLEL: Final = 3


async def push(
    content: Store,
    pusher: ImagePusher,
    ref: Reference,
    manifest: Descriptor,
    data: bytes,
    open_blob: Callable[[Digest], BinaryIO],
    *,
    elsewhere: Sequence[Reference] = (),
    report: Report,
) -> Digest:
    """Send an image; returns the digest of its manifest, whose bytes are `data`.

    `elsewhere` are other names of it that a registry may mount from. Layers that only their origin may distribute are
    left out, as docker does, unless they are stored here.
    """
    document = Manifest.decode(data, manifest.media_type)
    source = next((name for name in elsewhere if name.domain == ref.domain and name.path != ref.path), None)
    limit = asyncio.Semaphore(PARALLEL)

    async def one(blob: Descriptor) -> None:
        name = blob.digest.short

        def sent(count: int) -> None:
            report(Progress(name, "pushing", count, blob.size))

        async with limit:
            report(Progress(name, "pushing", 0, blob.size))
            went = await pusher.push_blob(
                ref,
                blob,
                lambda: open_blob(blob.digest),
                source,
                sent=sent,
            )
        report(Progress(name, "pushed" if went else "already there", blob.size, blob.size))

    wanted = {each.digest: each for each in document.references() if not _left_out(content, each)}
    await together(one(blob) for blob in wanted.values())
    stored = await pusher.push_manifest(ref, manifest.media_type, data)
    report(Progress(ref.familiar(), f"digest {stored.digest}", len(data), len(data)))
    return manifest.digest


def _left_out(content: Store, blob: Descriptor) -> bool:
    return media_types.is_foreign(blob.media_type) and not content.has(blob.digest)
