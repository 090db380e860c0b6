"""What images take on disk, each layer and blob counted once. Looks at the disk, so it takes a moment."""

from kestrel.content import Store
from kestrel.images.model import ImageUsage, StoreUsage
from kestrel.images.store import Images
from kestrel.snapshots import Snapshotter


def usage(images: Images, content: Store, snapshots: Snapshotter) -> StoreUsage:
    """Add it up. Blocks."""
    rooms = {diff_id: snapshots.layer_usage(diff_id) for diff_id in snapshots.layers()}
    layers = {diff_id: room.size for diff_id, room in rooms.items()}
    shared = images.shared_layers()
    each = []
    for row in images.all():
        mine = images.layers(row.digest)
        each.append(
            ImageUsage(
                id=row.id,
                names=tuple(name.familiar() for name in images.names(row.digest)),
                size=sum(layers.get(diff_id, 0) for diff_id in mine),
                unique=sum(layers.get(diff_id, 0) for diff_id in mine if diff_id not in shared),
            )
        )
    blobs = sum(1 for _ in content.walk())
    own = sum(room.size - room.shared for room in rooms.values())  # the rest is counted among the blobs
    return StoreUsage(tuple(each), own, len(layers), content.usage(), blobs)
