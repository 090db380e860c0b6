"""From one registry to another, byte for byte: an image for every platform it has, and what refers to it if asked.

Blobs pass through the content store under a lease: a copy that was cut short goes on where it ended, what is here is
not fetched, what is there is not sent, and what nothing names afterwards is garbage.
"""

import asyncio
from typing import BinaryIO

from kestrel.base.errors import InvalidArgument
from kestrel.content import Store
from kestrel.images.flights import together
from kestrel.images.model import ImageFetcher, ImagePusher, Progress, Report
from kestrel.images.pull import PARALLEL, Puller
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index, decode
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference

_NESTING = 4


class Copier:
    """Copies within one lease that the caller holds. `here` says that the target's registry serves this very store."""

    def __init__(
        self,
        content: Store,
        fetcher: ImageFetcher,
        pusher: ImagePusher,
        puller: Puller,
        report: Report,
        *,
        here: bool = False,
    ) -> None:
        self._content = content
        self._fetcher = fetcher
        self._pusher = pusher
        self._puller = puller
        self._here = here
        self._report = report
        self._limit = asyncio.Semaphore(PARALLEL)
        self._copied: set[Digest] = set()

    async def copy(
        self, source: Reference, target: Reference, *, platform: "Platform | None" = None, referrers: bool = False
    ) -> Digest:
        """Make `target` what `source` is, or its image for `platform`; returns the digest.

        Raises NotFound, and what either registry answers.
        """
        self._report(Progress(source.familiar(), "resolving"))
        top = await self._fetcher.resolve(source, platform)
        await self._manifest(source, target, top, 0)
        if referrers:
            for subject in list(self._copied):
                for each in await self._fetcher.referrers(source, subject):
                    await self._manifest(source, target.with_digest(each.digest), each, 0)
        return top.digest

    async def _manifest(self, source: Reference, target: Reference, descriptor: Descriptor, depth: int) -> None:
        if depth > _NESTING:
            raise InvalidArgument(f"{source.familiar()} is an index of indexes deeper than {_NESTING}")
        _, data = await self._fetcher.manifest(source.with_digest(descriptor.digest), descriptor)
        document = decode(data, descriptor.media_type)
        if isinstance(document, Index):
            for each in document.manifests:
                if each.digest not in self._copied:
                    await self._manifest(source, target.with_digest(each.digest), each, depth + 1)
        else:
            blobs = {each.digest: each for each in document.references() if not media_types.is_foreign(each.media_type)}
            await together(self._blob(source, target, blob) for blob in blobs.values())
        await asyncio.to_thread(self._content.put, data, descriptor.digest)
        await self._pusher.push_manifest(target, descriptor.media_type, data)
        self._copied.add(descriptor.digest)
        self._report(Progress(descriptor.digest.short, "copied", len(data), len(data)))

    async def _blob(self, source: Reference, target: Reference, blob: Descriptor) -> None:
        loop = asyncio.get_running_loop()

        def opened() -> BinaryIO:
            """Give the bytes to a push that turned out to need them. Runs in a thread."""
            asyncio.run_coroutine_threadsafe(self._fetched(source, blob), loop).result()
            return self._content.open(blob.digest)

        async with self._limit:
            if self._here:
                await self._fetched(source, blob)
            mount = source if source.domain == target.domain else None
            went = await self._pusher.push_blob(target, blob, opened, mount)
            self._report(Progress(blob.digest.short, "copied" if went else "already there", blob.size, blob.size))

    async def _fetched(self, source: Reference, blob: Descriptor) -> None:
        if not self._content.has(blob.digest):
            await self._puller.download(source, blob, self._report)
