"""Floor 5: named data that outlives containers."""

from kestrel.volumes.model import Volume
from kestrel.volumes.service import VolumeService

__all__ = ["Volume", "VolumeService"]
