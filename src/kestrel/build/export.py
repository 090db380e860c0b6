"""A solved plan becomes an image: configuration and manifest as bytes, the same for the same input every time.

Nothing in them says when or where the build ran: `created` is the time that files are clamped to, history lines have
it too. Layers of the base image are taken over as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kestrel.base.clock import rfc3339
from kestrel.base.errors import Internal
from kestrel.build.cache import Layer
from kestrel.build.graph import BaseImage, PlannedStage, Record, Step
from kestrel.oci import media_types
from kestrel.oci.config import History, ImageConfig, RootFS
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.oci.platform import Platform

COMMENT = "kestrel.dockerfile.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """An image as bytes, and its layers by diff_id, the bottom first."""

    config: bytes
    manifest: bytes
    layers: tuple[Digest, ...]
    descriptors: tuple[Descriptor, ...]

    @property
    def image_id(self) -> Digest:
        """The digest of the configuration."""
        return Digest.of(self.config)

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return Digest.of(self.manifest)


def assemble(stage: PlannedStage, left: Mapping[Step, Layer]) -> Assembled:
    """Make the image of a stage whose steps have left these layers."""
    steps = [record for record in stage.history if record.step is not None and left[record.step].diff_id]
    own = [left[record.step] for record in steps if record.step is not None]
    base = stage.base
    diff_ids = (*(base.layers if base else ()), *(Digest.parse(layer.diff_id) for layer in own))
    descriptors = (*_base_descriptors(base), *map(_descriptor, own))
    moment = rfc3339(datetime.fromtimestamp(stage.epoch, UTC))
    host = Platform.host()
    config = ImageConfig(
        created=moment,
        author=stage.author or (base.image.author if base else ""),
        architecture=base.image.architecture if base else host.architecture,
        variant=base.image.variant if base else host.variant,
        os=base.image.os if base else host.os,
        config=stage.config,
        rootfs=RootFS(diff_ids=diff_ids),
        history=(*_base_history(base), *(_history(record, left, moment) for record in stage.history)),
    ).encode()
    descriptor = Descriptor.of(media_types.OCI_CONFIG, config)
    manifest = Manifest.of(descriptor, descriptors).encode()
    return Assembled(config=config, manifest=manifest, layers=diff_ids, descriptors=descriptors)


def _history(record: Record, left: Mapping[Step, Layer], moment: str) -> History:
    empty = record.step is None or not left[record.step].diff_id
    return History(created=moment, created_by=record.created_by, comment=COMMENT, empty_layer=empty)


def _base_history(base: BaseImage | None) -> tuple[History, ...]:
    """Return the base's history, made whole: readers count on a line for each layer."""
    if base is None:
        return ()
    told = sum(not line.empty_layer for line in base.image.history)
    missing = max(0, len(base.layers) - told)
    return (*base.image.history, *(History(created_by=f"layer of {base.name}") for _ in range(missing)))


def _base_descriptors(base: BaseImage | None) -> tuple[Descriptor, ...]:
    if base is None:
        return ()
    if len(base.blobs) != len(base.layers):
        raise Internal(f"the base image {base.name} has {len(base.blobs)} blobs for {len(base.layers)} layers")
    return base.blobs


def _descriptor(layer: Layer) -> Descriptor:
    return Descriptor(media_type=layer.media_type, digest=Digest.parse(layer.blob), size=layer.size)
