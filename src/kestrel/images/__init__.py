"""Floor 5: images on this host: pulled, built, imported, tagged, pushed and removed."""

from kestrel.images.model import Image, ImageFetcher, ImagePusher, Progress, Pruned, Removed
from kestrel.images.service import ImageService

__all__ = ["Image", "ImageFetcher", "ImagePusher", "ImageService", "Progress", "Pruned", "Removed"]
