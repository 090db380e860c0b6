"""Images as this host knows them, what happens to them as values, and what the service needs of a registry client."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from kestrel.oci.config import ImageConfig
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image. `id` is the digest of its configuration, as docker names images; `digest` that of its manifest.

    `names` are familiar forms such as `busybox:latest`, sorted; empty for an image that lost its last name. `layers`
    are diff_ids, the lowest first; `blobs` describes the stored form of each, in the same order. `size` counts the
    bytes of the files in all layers. `created` is RFC 3339 text from the configuration, empty when it says nothing.
    """

    id: Digest
    digest: Digest
    names: tuple[str, ...]
    config: ImageConfig
    layers: tuple[Digest, ...]
    blobs: tuple[Descriptor, ...]
    size: int
    created: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a transfer: of which thing, what is done with it, and how far, in bytes (0 of 0: not countable)."""

    id: str
    status: str
    current: int = 0
    total: int = 0


Report = Callable[[Progress], object]


def silent(_: Progress) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did: names taken away, and ids of images that went with their last one."""

    untagged: tuple[str, ...]
    deleted: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning did. `freed` counts the bytes of stored blobs and of unpacked layers on disk."""

    images: tuple[Digest, ...]
    layers: tuple[Digest, ...]
    blobs: tuple[Digest, ...]
    freed: int


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """One image's part of the disk: all of it, and what no other image shares. Bytes."""

    id: Digest
    names: tuple[str, ...]
    size: int
    unique: int


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """What images take on disk, each layer and each blob counted once. Bytes.

    `layers` are mountable layers as `du` counts them, `blobs` stored files, unfinished transfers included.
    """

    images: tuple[ImageUsage, ...]
    layers: int
    layer_count: int
    blobs: int
    blob_count: int


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an image's history; `size` is 0 for a step that left no layer."""

    created: str
    created_by: str
    comment: str
    size: int
    layer: Digest | None


class ImageFetcher(Protocol):
    """What a pull needs of a registry client. `distribution.Client` fulfils it."""

    def with_credentials(self, credentials: Any) -> "ImageFetcher":
        """Return a fetcher that logs in with these instead of the configured ones."""
        ...

    async def resolve(self, ref: Reference, platform: Platform | None = None) -> Descriptor:
        """Return what the name stands for, a manifest or an index; with `platform`, the manifest for it."""
        ...

    async def manifest(self, ref: Reference, descriptor: Descriptor | None = None) -> tuple[Descriptor, bytes]:
        """Return a manifest or an index, verified."""
        ...

    def blob(
        self, ref: Reference, descriptor: Descriptor, offset: int = 0, *, verify: bool = True
    ) -> AsyncIterator[bytes]:
        """Yield a blob's bytes from `offset` on; with `verify` off the caller checks the digest."""
        ...

    async def referrers(self, ref: Reference, subject: Digest) -> list[Descriptor]:
        """Return the manifests in the repository whose subject it is."""
        ...


class ImagePusher(Protocol):
    """What a push needs of a registry client. `distribution.Client` fulfils it."""

    def with_credentials(self, credentials: Any) -> "ImagePusher":
        """Return a pusher that logs in with these instead of the configured ones."""
        ...

    async def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002 - what it does
        mount_from: Reference | None = None,
        *,
        sent: Callable[[int], None] = ...,
    ) -> bool:
        """Make the repository have the blob; returns whether bytes had to be sent."""
        ...

    async def push_manifest(self, ref: Reference, media_type: str, data: bytes) -> Descriptor:
        """Store a manifest under the reference's tag."""
        ...


InUse = Callable[[Digest], "tuple[str, ...] | list[str]"]
"""Names of the containers made of an image (by id)."""


def nobody(_: Digest) -> tuple[str, ...]:
    """Say that no container uses the image."""
    return ()


Roots = Mapping[str, Callable[[], "list[Digest]"]]
