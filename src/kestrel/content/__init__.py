"""Floor 4: blobs by digest, on disk."""

from kestrel.content.gc import Keeper, Root, Swept, Verdict, sweep, sweeping
from kestrel.content.ingest import ContentWriter, Follower, Upload
from kestrel.content.leases import Lease
from kestrel.content.local import Blob, Store

__all__ = [
    "Blob",
    "ContentWriter",
    "Follower",
    "Keeper",
    "Lease",
    "Root",
    "Store",
    "Swept",
    "Upload",
    "Verdict",
    "sweep",
    "sweeping",
]
