"""Floor 8: the registry, an OCI distribution-spec server over the content store.

`Registry` is the door (`handle` one request, or `application()` for aiohttp); `Repositories` is what it keeps: names,
tags, and which repository may show which blob. The image store pushes here without a copy through
`Repositories.link`.
"""

from kestrel.registry.metadata import Metadata
from kestrel.registry.repositories import Repositories
from kestrel.registry.server import Registry
from kestrel.registry.settings import Settings
from kestrel.registry.sqlite import SqliteMetadata

__all__ = ["Metadata", "Registry", "Repositories", "Settings", "SqliteMetadata"]
