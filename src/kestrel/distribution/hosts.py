"""Which server answers for a registry's name, and how it is spoken to.

Docker Hub's name is not the name of its API. Registries on this machine, and those listed as insecure, may speak
plain HTTP or show a certificate nobody knows; docker does the same for 127.0.0.0/8. An endpoint is where a request
goes; a mirror will be one more endpoint before the registry's own.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from kestrel.http.client import is_loopback

_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this node deals with other registries."""

    insecure_registries: tuple[str, ...] = ()
    """Hosts (`registry.lan:5000`), or networks (`10.0.0.0/8`), that may speak plain HTTP or be unverified."""
    docker_config: Path | None = None
    """A `config.json` with credentials; None looks nowhere."""
    attempts: int = 5
    """How often a request is sent at most before its error is reported."""
    backoff_seconds: float = 0.5
    """The first pause between two attempts; it doubles, and jitter makes it shorter."""
    longest_wait_seconds: float = 60.0
    """The most that one pause may take; a registry that asks for more (Retry-After) is reported instead."""
    chunk: int = 0
    """Bytes of one PATCH when uploading; 0 sends a blob in one PUT, which every registry takes and most do best."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server: `base` ends before `/v2/`. `tls` False leaves the certificate unchecked."""

    domain: str
    base: str
    tls: "ssl.SSLContext | bool" = True

    def url(self, path: str) -> str:
        """Return the address of something below `/v2/`."""
        return f"{self.base}/v2/{path}"


class Hosts:
    """Finds endpoints; remembers which of TLS and plain HTTP an insecure registry turned out to speak."""

    def __init__(self, settings: "Settings | None" = None) -> None:
        settings = settings or Settings()
        self._insecure = tuple(name.lower() for name in settings.insecure_registries)
        self._chosen: dict[str, Endpoint] = {}

    def candidates(self, domain: str) -> Sequence[Endpoint]:
        """Return the endpoints to try, the first that answers being the one to use.

        A registry elsewhere must speak TLS with a certificate we trust. For one on this machine plain HTTP is the
        rule, for an insecure one elsewhere TLS, and each falls back to the other.
        """
        if chosen := self._chosen.get(domain):
            return (chosen,)
        host = _HUB_API if domain == _HUB else domain
        if not self.is_insecure(domain):
            return (Endpoint(domain, f"https://{host}"),)
        plain, unverified = Endpoint(domain, f"http://{host}"), Endpoint(domain, f"https://{host}", False)
        return (plain, unverified) if is_loopback(hostname(domain)) else (unverified, plain)

    def choose(self, endpoint: Endpoint) -> None:
        """Remember the endpoint that answered."""
        self._chosen[endpoint.domain] = endpoint

    def is_insecure(self, domain: str) -> bool:
        """Whether plain HTTP and unknown certificates are accepted from this registry."""
        host = hostname(domain)
        if is_loopback(host):
            return True
        return any(name in (domain.lower(), host) or _in_network(host, name) for name in self._insecure)


def hostname(domain: str) -> str:
    """Return `host` of `host:port`, lower-case, an IPv6 address without its brackets."""
    if domain.startswith("["):
        return domain[1:].partition("]")[0].lower()
    return domain.partition(":")[0].lower()


def _in_network(host: str, network: str) -> bool:
    if "/" not in network:
        return False
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
