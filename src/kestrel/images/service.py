"""`ImageService`: the object that doors, engine and builder hold to work with images.

Each verb's work is in its own module (`pull`, `push`, `unpack`, `prune`, `transfer`); here they meet the tables and
each other. Methods are coroutines for one event loop; disk work goes to threads. A change of what is named is one
transaction after the bytes are safe, so a crash leaves the image as it was before or as it is after.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kestrel.archive.entries import Source
from kestrel.archive.writer import Sink
from kestrel.base.db import Database
from kestrel.base.errors import Conflict, InvalidArgument
from kestrel.content import Root, Store
from kestrel.images import commit as committing
from kestrel.images import prune as pruning
from kestrel.images import push as pushing
from kestrel.images import transfer
from kestrel.images.copy import Copier
from kestrel.images.difference import Difference, compare
from kestrel.images.find import find, normal
from kestrel.images.flights import Flights
from kestrel.images.model import (
    Image,
    ImageFetcher,
    ImagePusher,
    InUse,
    Progress,
    Pruned,
    Removed,
    Report,
    Roots,
    Step,
    StoreUsage,
    nobody,
    silent,
)
from kestrel.images.packed import Packed
from kestrel.images.pull import Fetched, Puller, check
from kestrel.images.store import Images, Row
from kestrel.images.unpack import ensure_unpacked
from kestrel.images.usage import usage
from kestrel.oci import media_types
from kestrel.oci.config import History, ImageConfig
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference
from kestrel.snapshots import Snapshotter

_Images = list[Image]  # inside the class, `list` is its method
_Digests = list[Digest]
_GRACE = 600.0
"""Seconds a blob that nothing names is left alone by `prune`: somebody may be about to name it."""


def _nothing() -> None:
    pass


def _elsewhere(_: str) -> bool:
    return False


class ImageService:
    """Images on this host.

    `in_use` says which containers an image has. `roots` and `layer_roots` are what others (registry, build cache)
    need kept, by the name that appears in a collection's reasons. `changed` is called after an image came in.
    `is_own` says of a registry's name whether it serves this very store.
    """

    def __init__(
        self,
        content: Store,
        snapshots: Snapshotter,
        database: Database,
        fetcher: ImageFetcher,
        pusher: ImagePusher,
        *,
        in_use: InUse = nobody,
        roots: "Mapping[str, Root] | None" = None,
        layer_roots: "Roots | None" = None,
        changed: Callable[[], None] = _nothing,
        is_own: Callable[[str], bool] = _elsewhere,
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._images = Images(database)
        self._fetcher = fetcher
        self._pusher = pusher
        self._in_use = in_use
        self._roots = dict(roots or {})
        self._layer_roots = dict(layer_roots or {})
        self._changed = changed
        self._is_own = is_own
        self._packed = Packed(content, database)
        self._pulls = Flights()
        self._layers = Flights()
        self._decoded: dict[Digest, tuple[Manifest, ImageConfig]] = {}

    # -- finding

    async def resolve(self, name: str) -> Image:
        """Return the image of that name, id, digest, or beginning of an id. Raises NotFound, InvalidArgument."""
        row = find(self._images, name)
        return await self._image(row)

    async def list(self) -> "_Images":
        """Return all images, the youngest first."""
        return [await self._image(row) for row in self._images.all()]

    async def history(self, name: str) -> tuple[Step, ...]:
        """Return how an image was made, the last step first, each with the bytes of the layer it left."""
        image = await self.resolve(name)
        layers = iter(image.layers)
        steps = []
        for entry in image.config.history:
            layer = None if entry.empty_layer else next(layers, None)
            size = self._snapshots.layer_size(layer) if layer and self._snapshots.has_layer(layer) else 0
            steps.append(Step(entry.created, entry.created_by, entry.comment, size, layer))
        return tuple(reversed(steps))

    async def diff(self, old: str, new: str) -> Difference:
        """Say what sets two images apart."""
        images = await self.resolve(old), await self.resolve(new)
        return await asyncio.to_thread(compare, self._content, *images)

    def digests(self, image: Image) -> tuple[str, ...]:
        """Return `repository@digest` for every digest the image is known by (docker's RepoDigests)."""
        return tuple(pin.familiar() for pin in self._images.pins(image.digest))

    # -- coming in

    async def pull(
        self,
        name: "str | Reference",
        *,
        platform: "Platform | None" = None,
        credentials: Any = None,
        progress: Report = silent,
    ) -> Image:
        """Fetch an image, or what is missing of it, and make it mountable.

        Raises NotFound, Unavailable, Unauthenticated as the registry answers, DataLoss for wrong bytes,
        InvalidArgument for what is no image, ResourceExhausted when the disk is full. An interrupted pull resumes.
        """
        ref = Reference.parse(name) if isinstance(name, str) else name
        wanted = platform or Platform.host()

        async def work(report: Report) -> Image:
            with self._content.lease():
                fetcher = self._fetcher.with_credentials(credentials) if credentials else self._fetcher
                puller = Puller(self._content, self._snapshots, fetcher, self._layers)
                fetched = await puller.pull(ref, wanted, report)
                image = await self._record(fetched, [ref])
            report(Progress(ref.familiar(), f"digest {image.digest}"))
            return image

        who = None if credentials is None else id(credentials)
        return await self._pulls.join((str(ref), str(wanted), who), progress, work)

    async def import_image(self, manifest: bytes, config: bytes, *, names: "Iterable[str | Reference]" = ()) -> Image:
        """Take in an image whose layers' blobs are in the content store already, and name it.

        Raises InvalidArgument when the documents contradict each other, NotFound when a blob is missing.
        """
        document = Manifest.decode(manifest)
        image = ImageConfig.decode(config)
        check(document, image, "the image")
        with self._content.lease():
            for blob in document.layers:
                if self._content.size(blob.digest) != blob.size:
                    raise InvalidArgument(f"the manifest gives blob {blob.digest} a wrong size")
            await asyncio.to_thread(self._content.put, config, document.config.digest)
            digest = await asyncio.to_thread(self._content.put, manifest)
            kind = document.media_type or media_types.OCI_MANIFEST
            descriptor = Descriptor(media_type=kind, digest=digest, size=len(manifest))
            fetched = Fetched(descriptor=descriptor, manifest=document, config=image, indexes=())
            references = [Reference.parse(n) if isinstance(n, str) else n for n in names]
            return await self._record(fetched, references, unpack=True)

    async def import_tars(
        self,
        tars: "Sequence[Path]",
        config: ImageConfig,
        *,
        names: "Iterable[str | Reference]" = (),
        progress: Report = silent,
    ) -> Image:
        """Make an image of plain layer tars on disk, the lowest first, and a configuration that lists them."""
        with self._content.lease():
            blobs = []
            for number, (tar, diff_id) in enumerate(zip(tars, config.rootfs.diff_ids, strict=True), 1):
                progress(Progress(diff_id.short, "storing", number, len(tars)))
                blobs.append(await asyncio.to_thread(committing.store_tar, self._content, tar, diff_id))
            data = config.encode()
            manifest = Manifest.of(Descriptor.of(media_types.OCI_CONFIG, data), blobs)
            return await self.import_image(manifest.encode(), data, names=names)

    async def import_files(
        self, source: Source, config: ImageConfig, *, names: "Iterable[str | Reference]" = ()
    ) -> Image:
        """Make an image of a root filesystem's tar, plain or compressed; `source` is read in a thread.

        Raises InvalidArgument for what is no tar, DataLoss for one that is damaged.
        """

        step = History(created=config.created, created_by="import", comment="imported from a tar")
        return await self._on_top((), committing.unpacked(source), config, step, names)

    async def add_layer(
        self,
        base: Image,
        write: committing.Write,
        config: ImageConfig,
        step: History,
        *,
        names: "Iterable[str | Reference]" = (),
    ) -> Image:
        """Make an image of another one and a layer more, whose plain tar `write` writes, in a thread."""
        return await self._on_top(base.blobs, write, config, step, names)

    async def _on_top(
        self,
        below: "Sequence[Descriptor]",
        write: committing.Write,
        config: ImageConfig,
        step: History,
        names: "Iterable[str | Reference]",
    ) -> Image:
        references = [Reference.parse(name) if isinstance(name, str) else name for name in names]
        with self._content.lease():
            made = await asyncio.to_thread(committing.add_layer, self._content, below, config, step, write)
            return await self.import_image(*made, names=references)

    async def ensure_unpacked(self, image: Image, progress: Report = silent) -> None:
        """Make every layer of an image mountable."""
        await ensure_unpacked(self._content, self._snapshots, image, progress)

    async def settle(self) -> int:
        """Make unpacked layers survive a power cut; returns how many. For a background task, now and then."""
        return await asyncio.to_thread(self._snapshots.settle)

    # -- going out

    async def push(self, name: "str | Reference", *, credentials: Any = None, progress: Report = silent) -> Digest:
        """Send an image to the registry its name says; returns the manifest's digest."""
        ref = Reference.parse(name) if isinstance(name, str) else name
        image = await self.resolve(str(ref))
        if not ref.tag:
            raise InvalidArgument(f"{ref.familiar()} has no tag to push to", hint="tag the image first")
        pusher = self._pusher.with_credentials(credentials) if credentials else self._pusher
        with self._content.lease():
            data = await asyncio.to_thread(self._content.read, image.digest)
            descriptor = Descriptor.of(image.media_type, data)
            if not self._is_own(ref.domain):
                descriptor, data = await asyncio.to_thread(self._packed.manifest, data, image.media_type, progress)
            digest = await pushing.push(
                self._content,
                pusher,
                ref,
                descriptor,
                data,
                self._packed.open,
                elsewhere=self._images.names(image.digest),
                report=progress,
            )
        await asyncio.to_thread(self._images.point, ref.with_digest(digest), image.digest)
        return digest

    async def copy(
        self,
        source: str,
        target: str,
        *,
        platform: "Platform | None" = None,
        referrers: bool = False,
        progress: Report = silent,
    ) -> Digest:
        """Copy from one registry to another, for every platform or one; with `referrers` signatures and the like too.

        Returns the digest. Nothing is unpacked, and no image appears here.
        """
        came, goes = Reference.parse(source), Reference.parse(target)
        with self._content.lease():
            puller = Puller(self._content, self._snapshots, self._fetcher, self._layers)
            here = self._is_own(goes.domain)
            copier = Copier(self._content, self._fetcher, self._pusher, puller, progress, here=here)
            return await copier.copy(came, goes, platform=platform, referrers=referrers)

    async def save(self, names: "Sequence[str]", sink: Sink, *, compression: str = "") -> None:
        """Write images as one tar that is an OCI layout and a docker archive; `sink` is written to in a thread.

        Layers are written as they are stored; with `compression` (gzip or zstd) those that are plain get it.
        They go under the names they are asked for by, as with docker: one asked for by its id has none in the tar.
        """
        images: dict[Digest, Image] = {}
        for name in names:
            image = await self.resolve(name)
            told = images[image.digest].names if image.digest in images else ()
            mine = [each for each in image.names if normal(each) == normal(name)]
            images[image.digest] = replace(image, names=tuple(dict.fromkeys((*told, *mine))))
        with self._content.lease() as lease:
            lease.protect(self._images.blobs())
            pack = partial(self._packed.manifest, report=silent, compression=compression) if compression else None
            await asyncio.to_thread(transfer.save, self._content, list(images.values()), sink, pack, self._packed.open)

    async def load(self, source: Source) -> "_Images":
        """Take in the images of such a tar, or of an older docker's; returns them with the names they came with.

        `source` is read in a thread.
        """
        with self._content.lease():
            found = await asyncio.to_thread(transfer.load, self._content, source)
            images = [await self.import_image(each.manifest, each.config, names=each.names) for each in found]
            names = [tuple(sorted(name.familiar() for name in each.names)) for each in found]
            return [replace(image, names=told) for image, told in zip(images, names, strict=True)]

    # -- naming and removing

    async def tag(self, source: str, target: "str | Reference") -> Image:
        """Give an image another name; a name that stood for something else moves."""
        ref = Reference.parse(target) if isinstance(target, str) else target
        if ref.digest:
            raise InvalidArgument(f"{ref.familiar()!r} cannot be given: a name with a digest is computed, not chosen")
        row = find(self._images, source)
        await asyncio.to_thread(self._images.point, ref, row.digest)
        return await self._image(row)

    async def remove(self, name: str, *, force: bool = False) -> Removed:
        """Take a name away, and with its last name the image; by id, the image.

        Conflict while a container uses it (with `force` it only loses its names) or, by id, while it has several
        names and `force` is not given. What other images share stays.
        """
        row = find(self._images, name)
        names = self._images.names(row.digest)
        mine = [each for each in names if str(each) == normal(name)]
        if mine and len(names) > 1:
            await asyncio.to_thread(self._images.forget, mine[0])
            return Removed((mine[0].familiar(),), ())
        if len(names) > 1 and not force:
            raise Conflict(
                f"image {row.id.short} has {len(names)} names: {', '.join(n.familiar() for n in names)}",
                hint="remove them by name, or use --force to remove all",
            )
        users = tuple(self._in_use(row.id))
        if users and not force:
            raise Conflict(
                f"image {name} is used by container {users[0]}",
                hint="remove the container first, or use --force to only take the name away",
            )
        if users:
            for each in names:
                await asyncio.to_thread(self._images.forget, each)
            return Removed(tuple(each.familiar() for each in names), ())
        await asyncio.to_thread(self._delete, [row])
        return Removed(tuple(each.familiar() for each in names), (row.id,))

    async def prune(self, *, everything: bool = False, grace: float = _GRACE) -> Pruned:
        """Remove images without a name that no container uses (with `everything`, named ones too), and garbage."""
        doomed = [
            row
            for row in self._images.all()
            if (everything or not self._images.names(row.digest)) and not self._in_use(row.id)
        ]
        return await asyncio.to_thread(self._prune, doomed, grace)

    async def release(self, blobs: "Sequence[Digest]", layers: "Sequence[Digest]") -> int:
        """Remove those of some blobs and layers that nobody needs any more; returns the bytes that this freed."""
        _, _, freed = await asyncio.to_thread(
            pruning.collect,
            self._images,
            self._content,
            self._snapshots,
            roots=self._roots,
            layer_roots=self._layer_roots,
            blobs=blobs,
            layers=layers,
        )
        return freed

    # -- accounting

    async def usage(self) -> StoreUsage:
        """Say what takes how much room, each layer and blob counted once; looks at the disk, so it takes a moment."""
        return await asyncio.to_thread(usage, self._images, self._content, self._snapshots)

    def roots(self) -> "_Digests":
        """Return every blob that images need, for a collection."""
        return self._images.blobs()

    def layer_roots(self) -> "_Digests":
        """Return every layer (by diff_id) that images need."""
        return self._images.layers()

    # -- inside

    async def _image(self, row: Row) -> Image:
        cached = self._decoded.get(row.digest)
        if cached is None:
            cached = self._decoded[row.digest] = await asyncio.to_thread(self._decode, row)
        manifest, config = cached
        return Image(
            id=row.id,
            digest=row.digest,
            names=tuple(sorted(each.familiar() for each in self._images.names(row.digest))),
            config=config,
            layers=config.rootfs.diff_ids,
            blobs=manifest.layers,
            size=row.size,
            created=config.created,
            media_type=row.media_type,
        )

    def _decode(self, row: Row) -> tuple[Manifest, ImageConfig]:
        manifest = Manifest.decode(self._content.read(row.digest), row.media_type)
        return manifest, ImageConfig.decode(self._content.read(manifest.config.digest))

    async def _record(self, fetched: Fetched, names: Sequence[Reference], *, unpack: bool = False) -> Image:
        row = Row(
            digest=fetched.descriptor.digest,
            id=fetched.manifest.config.digest,
            media_type=fetched.descriptor.media_type,
            size=0,
        )
        self._decoded[row.digest] = (fetched.manifest, fetched.config)
        if unpack:
            await self.ensure_unpacked(await self._image(row))
        diff_ids = fetched.config.rootfs.diff_ids
        size = sum(self._snapshots.layer_size(each) for each in diff_ids)
        row = Row(digest=row.digest, id=row.id, media_type=row.media_type, size=size)
        await asyncio.to_thread(self._images.add, row, fetched.blobs(), diff_ids, names)
        for index in fetched.indexes:
            for name in names:
                await asyncio.to_thread(self._images.point, name.with_digest(index), row.digest)
        self._changed()
        return await self._image(row)

    def _delete(self, rows: "Sequence[Row]", *, blobs: bool = True, grace: float = 0.0) -> Pruned:
        """Remove images and what only they needed."""
        loose: set[Digest] = set()
        layers: set[Digest] = set()
        for row in rows:
            loose.update(self._images.blobs(row.digest))
            layers.update(self._images.layers(row.digest))
            self._images.delete(row.digest)
            self._decoded.pop(row.digest, None)
        gone, swept, freed = pruning.collect(
            self._images,
            self._content,
            self._snapshots,
            roots=self._roots,
            layer_roots=self._layer_roots,
            blobs=loose if blobs else None,
            layers=layers if blobs else None,
            grace=grace,
        )
        return Pruned(tuple(row.id for row in rows), tuple(gone), tuple(swept), freed)

    def _prune(self, rows: "Sequence[Row]", grace: float) -> Pruned:
        theirs = self._delete(rows)
        rest = self._delete([], blobs=False, grace=grace)
        return Pruned(theirs.images, theirs.layers + rest.layers, theirs.blobs + rest.blobs, theirs.freed + rest.freed)
