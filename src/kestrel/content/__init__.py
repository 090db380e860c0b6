"""Floor 4: blobs by digest, on disk."""

from kestrel.content.gc import Swept, sweep
from kestrel.content.ingest import ContentWriter, Follower, Upload
from kestrel.content.leases import Lease
from kestrel.content.local import Blob, Store

__all__ = ["Blob", "ContentWriter", "Follower", "Lease", "Store", "Swept", "Upload", "sweep"]
