"""Floor 4: layers in mountable form, and writable snapshots on them."""

from kestrel.snapshots.erofs import Erofs, missing
from kestrel.snapshots.overlay import Overlay
from kestrel.snapshots.snapshotter import Committed, Snapshotter, Usage

__all__ = ["Committed", "Erofs", "Overlay", "Snapshotter", "Usage", "missing"]
