"""Giving disk back: what no image, container, build or repository needs.

Blobs go through the content store's collection, layers go unless an image or somebody else's root names them or a
snapshot stands on them. A layer that goes too much is only work to do again; a blob that goes too much is lost, so
blobs have to be named by nobody, and be older than a moment's grace.
"""

from collections.abc import Iterable, Mapping

from kestrel.base.errors import Conflict
from kestrel.content import Root, Store, sweeping
from kestrel.images.model import Roots
from kestrel.images.store import Images
from kestrel.oci.digest import Digest
from kestrel.snapshots import Snapshotter


def collect(
    images: Images,
    content: Store,
    snapshots: Snapshotter,
    *,
    roots: Mapping[str, Root],
    layer_roots: Roots,
    blobs: "Iterable[Digest] | None" = None,
    layers: "Iterable[Digest] | None" = None,
    grace: float = 0.0,
) -> tuple[list[Digest], list[Digest], int]:
    """Remove what nothing needs, of the given blobs and layers or of all; returns both and the bytes freed."""
    gone, freed = collect_layers(images, snapshots, layer_roots, layers)
    everything: dict[str, Root] = {"images": images.blobs, **roots}
    removed = [verdict for verdict in sweeping(content, everything, grace=grace, only=blobs) if verdict.removed]
    return gone, [verdict.digest for verdict in removed], freed + sum(verdict.size for verdict in removed)


def collect_layers(
    images: Images, snapshots: Snapshotter, roots: Roots, only: "Iterable[Digest] | None"
) -> tuple[list[Digest], int]:
    """Remove mountable layers nothing names; returns them and the bytes freed."""
    named = set(images.layers()).union(*_called(roots))
    gone, freed = [], 0
    for diff_id in set(snapshots.layers() if only is None else only) - named:
        if not snapshots.has_layer(diff_id):
            continue
        room = snapshots.layer_usage(diff_id)
        try:
            snapshots.remove_layer(diff_id)
        except Conflict:
            continue  # a container or a build step stands on it
        gone.append(diff_id)
        freed += room.size - room.shared  # what is shared goes with the blob, or stays with it
    return gone, freed


def _called(roots: Roots) -> list[list[Digest]]:
    return [root() for root in roots.values()]
