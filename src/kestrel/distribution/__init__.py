"""Floor 4: the client of any registry.

`Client` resolves names, fetches and pushes; `Settings` says how; `credentials` holds who we are. It knows registries
and bytes, not this host's images: those are `kestrel.images`.
"""

from kestrel.distribution.client import Client
from kestrel.distribution.credentials import (
    Anonymous,
    Chain,
    Credential,
    Credentials,
    DockerConfig,
    FileConfig,
    Fixed,
    pull_secrets,
)
from kestrel.distribution.hosts import Endpoint, Hosts, Settings
from kestrel.distribution.logins import Logins

__all__ = [
    "Anonymous",
    "Chain",
    "Client",
    "Credential",
    "Credentials",
    "DockerConfig",
    "Endpoint",
    "FileConfig",
    "Fixed",
    "Hosts",
    "Logins",
    "Settings",
    "pull_secrets",
]
