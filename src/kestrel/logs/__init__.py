"""Floor 5: container output in the CRI log format: parsed, tailed and followed across rotations."""

from kestrel.logs.cri_format import Entry, parse
from kestrel.logs.reader import LogOptions, read, render

__all__ = ["Entry", "LogOptions", "parse", "read", "render"]
