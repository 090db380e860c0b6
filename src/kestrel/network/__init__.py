"""Container networks on this host: one bridge, an address per sandbox, published ports, names."""

from kestrel.network.model import Endpoint, PortMapping, Settings
from kestrel.network.service import NetworkService

__all__ = ["Endpoint", "NetworkService", "PortMapping", "Settings"]
