"""From a name on a registry to an image that can run: resolve, fetch what is missing, verify, unpack.

Three layers travel at once. A layer is written as it comes and hashed; when its connection or the daemon dies, what
arrived stays as an upload named by its digest and the next pull continues there. A layer is made mountable while it
arrives, by a thread that follows what is written of it. Nothing names the image until every blob is durable and every
layer mountable, and a lease keeps the blobs until something does.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from kestrel.base.errors import DataLoss, InvalidArgument, KestrelError
from kestrel.content import Store, Upload
from kestrel.images.flights import Flights, together
from kestrel.images.model import ImageFetcher, Progress, Report
from kestrel.images.unpack import unpack_arriving, unpack_layer
from kestrel.oci import config, media_types
from kestrel.oci.config import ImageConfig
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index, Manifest
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference
from kestrel.snapshots import Snapshotter

PARALLEL: Final = 3
_PIECE: Final = 1 << 20
_NESTING: Final = 4
_LAYER_LIMIT: Final = 1000
"""More layers than any image has; a mount takes 500 (see `snapshots.stack`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Everything of one image, in the store: its manifest, configuration, and the indexes it was chosen from."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    indexes: tuple[Digest, ...]

    def blobs(self) -> list[Digest]:
        """Return all blobs that have to be kept for it."""
        return [self.descriptor.digest, *self.indexes, *(each.digest for each in self.manifest.references())]


class Puller:
    """Fetches images with one client into one store. `layers` is shared by all pulls: a layer travels once."""

    def __init__(self, content: Store, snapshots: Snapshotter, fetcher: ImageFetcher, layers: Flights) -> None:
        self._content = content
        self._snapshots = snapshots
        self._fetcher = fetcher
        self._layers = layers

    async def pull(self, ref: Reference, platform: Platform, report: Report) -> Fetched:
        """Fetch and unpack; the caller holds a lease until it has recorded the image."""
        report(Progress(ref.familiar(), "resolving"))
        top = await self._fetcher.resolve(ref)
        descriptor, manifest, indexes = await self._manifest(ref, top, platform)
        image = await self._config(ref, manifest)
        limit = asyncio.Semaphore(PARALLEL)
        pairs = dict(zip(image.rootfs.diff_ids, manifest.layers, strict=True))
        for blob in pairs.values():
            report(Progress(blob.digest.short, "waiting", 0, blob.size))
        await together(self._layer(ref, blob, diff_id, limit, report) for diff_id, blob in pairs.items())
        # Two layers of one content may be stored in two forms; every form that the manifest names is kept.
        others = {blob.digest: blob for blob in manifest.layers if blob not in pairs.values()}
        await together(self._blob(ref, blob, limit, report) for blob in others.values())
        return Fetched(descriptor=descriptor, manifest=manifest, config=image, indexes=indexes)

    # -- documents

    async def _manifest(
        self, ref: Reference, top: Descriptor, platform: Platform
    ) -> tuple[Descriptor, Manifest, tuple[Digest, ...]]:
        indexes: list[Digest] = []
        found = top
        for _ in range(_NESTING):
            data = await self._document(ref, found)
            if not media_types.is_index(found.media_type):
                manifest = Manifest.decode(data, found.media_type)
                if not manifest.is_image:
                    kind = manifest.artifact_type or manifest.config.media_type
                    raise InvalidArgument(f"{ref.familiar()} is not an image but an artifact of type {kind}")
                return found, manifest, tuple(indexes)
            indexes.append(found.digest)
            chosen = Index.decode(data, found.media_type).select(platform)
            found = Descriptor(media_type=chosen.media_type, digest=chosen.digest, size=chosen.size)
        raise InvalidArgument(f"{ref.familiar()} is an index of indexes deeper than {_NESTING}")

    async def _document(self, ref: Reference, descriptor: Descriptor) -> bytes:
        if self._content.has(descriptor.digest):
            return await asyncio.to_thread(self._content.read, descriptor.digest)
        _, data = await self._fetcher.manifest(replace(ref, tag="", digest=descriptor.digest), descriptor)
        await asyncio.to_thread(self._content.put, data, descriptor.digest)
        return data

    async def _config(self, ref: Reference, manifest: Manifest) -> ImageConfig:
        if manifest.config.size > config.LIMIT:
            raise InvalidArgument(f"the configuration of {ref.familiar()} has {manifest.config.size} bytes")
        if not self._content.has(manifest.config.digest):
            await self.download(ref, manifest.config, _nothing)
        image = ImageConfig.decode(await asyncio.to_thread(self._content.read, manifest.config.digest))
        check(manifest, image, ref.familiar())
        return image

    # -- layers

    async def _layer(
        self, ref: Reference, blob: Descriptor, diff_id: Digest, limit: asyncio.Semaphore, report: Report
    ) -> None:
        if self._content.has(blob.digest) and self._snapshots.has_layer(diff_id):
            report(Progress(blob.digest.short, "already here", blob.size, blob.size))
            return

        async def work(tell: Report) -> None:
            if not self._content.has(blob.digest):
                await self.download(ref, blob, tell, diff_id)
            tell(Progress(blob.digest.short, "extracting", 0, blob.size))
            await asyncio.to_thread(unpack_layer, self._content, self._snapshots, blob, diff_id)
            tell(Progress(blob.digest.short, "complete", blob.size, blob.size))

        async with limit:
            try:
                await self._layers.join((blob.digest, diff_id), report, work)
            except KestrelError as error:
                raise _about(error, f"layer {blob.digest.short} of {ref.familiar()}") from error
        self._content.has(blob.digest)  # another pull may have carried it; our lease shall hold it too

    async def _blob(self, ref: Reference, blob: Descriptor, limit: asyncio.Semaphore, report: Report) -> None:
        async with limit:
            if not self._content.has(blob.digest):
                await self.download(ref, blob, report)

    async def download(self, ref: Reference, blob: Descriptor, tell: Report, diff_id: "Digest | None" = None) -> None:
        """Fetch one blob, from where an earlier attempt ended. With `diff_id` it is unpacked as it arrives.

        A blob that is whole but cannot be unpacked is kept, and raises.
        """
        with self._content.upload(upload_id(blob.digest), algorithm=blob.digest.algorithm) as upload:
            if upload.offset > blob.size:
                upload.truncate()
            if diff_id is None or diff_id == blob.digest or self._snapshots.has_layer(diff_id):
                await self._receive(upload, ref, blob, tell)
                return
            # A thread of its own: it mostly waits, and those of the pool are needed to write what it waits for.
            pool = ThreadPoolExecutor(1, "unpack")
            work = pool.submit(unpack_arriving, self._snapshots, upload.follow(), diff_id)
            pool.shutdown(wait=False)
            unpacking = asyncio.wrap_future(work)
            try:
                await self._receive(upload, ref, blob, tell)
                await asyncio.shield(unpacking)
            except BaseException:
                upload.close()  # the thread ends with it
                await asyncio.wait([unpacking])
                unpacking.exception()  # is ours, or follows from ours
                raise

    async def _receive(self, upload: Upload, ref: Reference, blob: Descriptor, tell: Report) -> None:
        name = blob.digest.short
        pieces: list[bytes] = []
        waiting = 0
        try:
            async for piece in self._fetcher.blob(ref, blob, upload.offset, verify=False):
                pieces.append(piece)
                waiting += len(piece)
                if waiting >= _PIECE:
                    await asyncio.to_thread(upload.write, b"".join(pieces))
                    pieces, waiting = [], 0
                    tell(Progress(name, "downloading", upload.offset, blob.size))
        finally:
            if pieces:  # also what came before a failure: the next attempt need not fetch it again
                upload.write(b"".join(pieces))
        tell(Progress(name, "downloading", upload.offset, blob.size))
        await self._commit(upload, ref, blob)

    async def _commit(self, upload: Upload, ref: Reference, blob: Descriptor) -> None:
        try:
            await asyncio.to_thread(upload.commit, blob.digest, blob.size)
        except DataLoss as error:
            upload.abort()
            raise DataLoss(
                f"{ref.domain} sent wrong bytes for {blob.digest}: {error.message}",
                hint="try again; if it repeats, the registry or something on the way to it changes what it serves",
            ) from error


def upload_id(digest: Digest) -> str:
    """Return the name under which an unfinished download waits."""
    return f"pull-{digest.algorithm}-{digest.hex}"


def check(manifest: Manifest, image: ImageConfig, name: str) -> None:
    """Refuse an image whose two documents contradict each other; raises InvalidArgument."""
    if len(manifest.layers) != len(image.rootfs.diff_ids):
        raise InvalidArgument(
            f"{name} has {len(manifest.layers)} layers but a configuration for {len(image.rootfs.diff_ids)}"
        )
    if len(manifest.layers) > _LAYER_LIMIT:
        raise InvalidArgument(f"{name} has {len(manifest.layers)} layers, more than {_LAYER_LIMIT}")
    for blob in manifest.layers:
        if not media_types.is_layer(blob.media_type):
            raise InvalidArgument(f"{name} has a layer of the unknown type {blob.media_type[:100]!r}")


def _nothing(_: Progress) -> None:
    pass


def _about(error: KestrelError, what: str) -> KestrelError:
    if what in error.message:
        return error
    return type(error)(f"{what}: {error.message}", hint=error.hint)
