"""Media types of images, OCI's (image-spec media-types.md) and docker's (distribution manifest-v2-2.md).

The two families describe the same things; `compatible` and the `is_*` questions treat them alike, so no other
module compares these strings by hand.
"""

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_FOREIGN_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_FOREIGN_LAYER_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_FOREIGN_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
ACCEPT: Final = (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)
"""What a client asks a registry for, the richest first."""

_COMPRESSION: Final = {
    OCI_LAYER: "",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    OCI_FOREIGN_LAYER: "",
    OCI_FOREIGN_LAYER_GZIP: "gzip",
    OCI_FOREIGN_LAYER_ZSTD: "zstd",
    DOCKER_LAYER: "",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    DOCKER_FOREIGN_LAYER: "",
    DOCKER_FOREIGN_LAYER_GZIP: "gzip",
}
_FOREIGN: Final = frozenset(name for name in _COMPRESSION if "foreign" in name or "nondistributable" in name)


def is_index(media_type: str) -> bool:
    """Whether it names a list of manifests."""
    return media_type in INDEXES


def is_manifest(media_type: str) -> bool:
    """Whether it names the manifest of one image or artifact."""
    return media_type in MANIFESTS


def is_schema1(media_type: str) -> bool:
    """Whether it names docker's first manifest format, which nobody should use any more."""
    return media_type in (DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED)


def is_config(media_type: str) -> bool:
    """Whether it names the configuration of a runnable image."""
    return media_type in CONFIGS


def is_layer(media_type: str) -> bool:
    """Whether it names a filesystem changeset that can be applied."""
    return media_type in _COMPRESSION


def is_foreign(media_type: str) -> bool:
    """Whether it names a layer that a push leaves out because others distribute it."""
    return media_type in _FOREIGN


def layer_compression(media_type: str) -> str:
    """Return `gzip`, `zstd` or, for a plain tar and for anything that is no layer, the empty string."""
    return _COMPRESSION.get(media_type, "")


def layer_type(compression: str) -> str:
    """Return the OCI media type of a layer compressed that way (`gzip`, `zstd`, or empty for none)."""
    return {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}[compression]


def essence(content_type: str) -> str:
    """Return a Content-Type header's media type without its parameters, lower-case."""
    return content_type.partition(";")[0].strip().lower()
