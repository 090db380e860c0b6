"""Base images by name: what is here first, then the registry; the error says what was tried."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kestrel.archive.entries import Source
from kestrel.archive.writer import Sink
from kestrel.base.errors import KestrelError, NotFound
from kestrel.build.events import Emit, Pulling, Resolved
from kestrel.build.graph import BaseImage
from kestrel.images import Image, Progress
from kestrel.oci.digest import Digest


class Images(Protocol):
    """What the builder needs of the image service, which fulfils it."""

    async def resolve(self, name: str) -> Image:
        """Return the image of that name on this host; raises NotFound."""
        ...

    async def pull(self, name: str, *, progress: Callable[[Progress], object]) -> Image:
        """Fetch an image from its registry."""
        ...

    async def ensure_unpacked(self, image: Image) -> None:
        """Make every layer mountable."""
        ...

    async def import_image(self, manifest: bytes, config: bytes, *, names: tuple[str, ...]) -> Image:
        """Take in an image whose blobs are in the content store."""
        ...

    async def list(self) -> "Sequence[Image]":
        """Return every image on this host."""
        ...

    async def release(self, blobs: "Sequence[Digest]", layers: "Sequence[Digest]") -> int:
        """Remove those of them that nobody needs any more; return the bytes that this freed."""
        ...

    async def load(self, source: Source) -> "Sequence[Image]":
        """Take in the images of such a tar, or of an OCI layout packed as one."""
        ...

    async def save(self, names: Sequence[str], sink: Sink, *, compression: str = "") -> None:
        """Write images as one tar, plain layers with the compression (gzip or zstd)."""
        ...


class Bases:
    """Looks base images up for one build, each once."""

    def __init__(self, images: Images, emit: Emit, *, pull: bool) -> None:
        self._images = images
        self._emit = emit
        self._pull = pull
        self._found: list[Image] = []

    async def find(self, name: str) -> BaseImage:
        """Return an image by name. Raises NotFound that names what was tried."""
        began = time.monotonic()
        image, how = await self._look(name)
        self._found.append(image)
        self._emit(Resolved(name=name, digest=str(image.digest), how=how, seconds=time.monotonic() - began))
        return BaseImage(name=name, image=image.config, blobs=image.blobs)

    async def unpack(self) -> None:
        """Make all that was found mountable."""
        for image in self._found:
            await self._images.ensure_unpacked(image)

    async def _look(self, name: str) -> tuple[Image, str]:
        if not self._pull:
            try:
                return await self._images.resolve(name), "local"
            except NotFound:
                pass
        try:
            return await self._images.pull(name, progress=lambda p: self._tell(name, p)), "pulled"
        except KestrelError as error:
            if not self._pull:
                raise NotFound(
                    f"the image `{name}` is not on this host, and it could not be pulled: {error.message}",
                    hint=error.hint or "make a base image without a registry: kestrel image bootstrap",
                ) from error
            # A newer one was asked for and cannot be had: say so rather than build on an old one.
            raise NotFound(
                f"the image `{name}` could not be pulled: {error.message}",
                hint=error.hint or "without --pull the one on this host is used",
            ) from error

    def _tell(self, name: str, progress: Progress) -> None:
        self._emit(
            Pulling(
                name=name,
                id=progress.id,
                status=progress.status,
                current=progress.current,
                total=progress.total,
            )
        )
