"""What a named volume is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory with a name. `size` in bytes is what was asked for (0: nothing), `path` is the data itself."""

    name: str
    path: str
    created: datetime
    size: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
