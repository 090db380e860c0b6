"""Floor 7: pods as sandboxes with containers, shared by the kubelet and CRI."""

from kestrel.pods.model import Attempt, ImageInfo, PodContainer, PodEvent, PodRecord, PodSandbox
from kestrel.pods.service import PodService

__all__ = ["Attempt", "ImageInfo", "PodContainer", "PodEvent", "PodRecord", "PodSandbox", "PodService"]
