"""A pointer to content: its type, digest and size (image-spec descriptor.md)."""

from typing import Annotated

from msgspec import Meta

from kestrel.oci.digest import Digest
from kestrel.oci.platform import Platform
from kestrel.oci.records import Record

Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Bytes; the image spec stores an int64."""


class Descriptor(Record, frozen=True, kw_only=True, rename="camel"):
    """`digest` and `size` are what the receiver verifies; `data` may carry the content itself, base64 in JSON."""

    media_type: str
    digest: Digest
    size: Size
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    data: str = ""
    artifact_type: str = ""
    platform: Platform | None = None

    @classmethod
    def of(cls, media_type: str, data: bytes) -> "Descriptor":
        """Describe bytes in memory."""
        return cls(media_type=media_type, digest=Digest.of(data), size=len(data))
