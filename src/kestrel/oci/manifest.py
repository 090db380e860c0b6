"""Manifests and indexes (image-spec manifest.md, image-index.md; docker's schema 2 and manifest list).

A stranger's bytes must be exactly one of the two. CVE-2021-41190 was a document that one party read as a manifest
and another as an index, so a document with the fields of both, with a media type that contradicts what the
registry said, or with a key that differs from a known one only in case (Go's decoder would take it) is refused.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from kestrel.base.errors import InvalidArgument, NotFound
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.platform import Platform
from kestrel.oci.records import Record, from_json, parse_json

LIMIT: Final = 4 * 1024 * 1024
"""Most bytes of a manifest; the distribution spec asks registries for at least 4 MB."""
REF_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation of an index that holds a tag (image-spec annotations.md)."""

D = TypeVar("D", "Manifest", "Index")
_MANIFEST_ONLY = ("config", "layers", "fsLayers", "history", "blobs")
_INDEX_ONLY = ("manifests",)


class Manifest(Record, frozen=True, kw_only=True, rename="camel"):
    """One image, or one artifact: a configuration and an ordered list of layers, the lowest first."""

    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}

    @classmethod
    def decode(cls, data: bytes, media_type: str = "") -> "Manifest":
        """Read a manifest that arrived as `media_type` (empty when nobody said); raises InvalidArgument."""
        return _decode(cls, data, media_type, "manifest", media_types.MANIFESTS, _INDEX_ONLY)

    @classmethod
    def of(cls, config: Descriptor, layers: "tuple[Descriptor, ...] | list[Descriptor]", **more: Any) -> "Manifest":
        """Make an OCI image manifest."""
        return cls(schema_version=2, media_type=media_types.OCI_MANIFEST, config=config, layers=tuple(layers), **more)

    def to_json(self) -> dict[str, Any]:
        """Write `layers` always: the spec requires it even when it lists nothing."""
        return {**Record.to_json(self), "layers": [each.to_json() for each in self.layers]}

    @property
    def is_image(self) -> bool:
        """Whether a container could be made of it; artifacts carry other things."""
        return media_types.is_config(self.config.media_type)

    def references(self) -> tuple[Descriptor, ...]:
        """Return everything this document needs to be whole (not its subject, which points the other way)."""
        return (self.config, *self.layers)


class Index(Record, frozen=True, kw_only=True, rename="camel"):
    """Manifests of one thing for several platforms, or any list of manifests."""

    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}

    @classmethod
    def decode(cls, data: bytes, media_type: str = "") -> "Index":
        """Read an index that arrived as `media_type` (empty when nobody said); raises InvalidArgument."""
        return _decode(cls, data, media_type, "index", media_types.INDEXES, _MANIFEST_ONLY)

    @classmethod
    def of(cls, manifests: "tuple[Descriptor, ...] | list[Descriptor]", **more: Any) -> "Index":
        """Make an OCI image index."""
        return cls(schema_version=2, media_type=media_types.OCI_INDEX, manifests=tuple(manifests), **more)

    def to_json(self) -> dict[str, Any]:
        """Write `manifests` always: the spec requires it even when it lists nothing."""
        return {**Record.to_json(self), "manifests": [each.to_json() for each in self.manifests]}

    def select(self, platform: Platform) -> Descriptor:
        """Return the entry that suits `platform` best; raises NotFound that lists what there is.

        An entry without a platform suits any (image-spec: the field is optional) but loses to one that names it.
        """
        best, best_rank = None, 0
        for entry in self.manifests:
            if not (media_types.is_manifest(entry.media_type) or media_types.is_index(entry.media_type)):
                continue
            rank = platform.rank(entry.platform) if entry.platform else 1
            if rank > best_rank:
                best, best_rank = entry, rank
        if best is None:
            offered = sorted({str(e.platform) for e in self.manifests if e.platform and e.platform.os != "unknown"})
            raise NotFound(
                f"no image for {platform} in the index",
                hint=f"it offers {', '.join(offered)}" if offered else "it lists no platform at all",
            )
        return best

    def references(self) -> tuple[Descriptor, ...]:
        """Return everything this document lists."""
        return self.manifests


def decode(data: bytes, media_type: str = "") -> "Manifest | Index":
    """Read either; the media type said by the sender or in the document decides, else its fields."""
    media_type = media_types.essence(media_type)
    if not media_type:
        raw = parse_json(data, what="manifest", limit=LIMIT)
        inside = raw.get("mediaType") if isinstance(raw, dict) else None
        media_type = inside if isinstance(inside, str) else ""
        if not media_type and isinstance(raw, dict) and "manifests" in raw:
            return Index.decode(data)
    return Index.decode(data, media_type) if media_types.is_index(media_type) else Manifest.decode(data, media_type)


def _decode(
    cls: type[D], data: bytes, media_type: str, what: str, allowed: frozenset[str], foreign: tuple[str, ...]
) -> D:
    media_type = media_types.essence(media_type)
    if media_types.is_schema1(media_type):
        raise InvalidArgument(
            "docker manifest schema 1 is not supported", hint="push the image again with a newer client"
        )
    raw = parse_json(data, what=what, limit=LIMIT)
    if not isinstance(raw, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    inside = raw.get("mediaType", "")
    _refuse_confusion(raw, what, foreign)
    if raw.get("schemaVersion") != 2:
        raise InvalidArgument(f"{what} has schemaVersion {raw.get('schemaVersion')!r}, only 2 is supported")
    if inside and media_type and inside != media_type:
        raise InvalidArgument(f"{what} calls itself {inside!r} but was sent as {media_type!r}")
    actual = inside or media_type
    if actual and actual not in allowed:
        raise InvalidArgument(f"{actual!r} is not the media type of an image {what}")
    return from_json(cls, raw)


def _refuse_confusion(raw: Mapping[str, Any], what: str, foreign: tuple[str, ...]) -> None:
    for key in foreign:
        if key in raw:
            raise InvalidArgument(f"{what} also has the field {key!r}, which belongs to another kind of document")
    known = {key.lower(): key for key in ("schemaVersion", "mediaType", *_MANIFEST_ONLY, *_INDEX_ONLY)}
    for key in raw:
        if known.get(key.lower(), key) != key:
            raise InvalidArgument(
                f"{what} has the field {key!r}, which differs from {known[key.lower()]!r} only in case"
            )
