"""Floor 8: the door of our own command line: one verb a request, JSON lines or a taken-over stream as the answer."""

from kestrel.control.server import application
from kestrel.control.services import Services

__all__ = ["Services", "application"]
