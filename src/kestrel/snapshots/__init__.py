"""Floor 4: layers in mountable form, and writable snapshots on them."""

from kestrel.snapshots.overlay import Overlay
from kestrel.snapshots.snapshotter import Committed, Snapshotter, Usage

__all__ = ["Committed", "Overlay", "Snapshotter", "Usage"]
