"""Which servers answer for a registry's name, in which order, and how each is spoken to.

A name's hosts come from the first of the files that has a rule for it (see `mirrors`): containerd's `hosts.toml` for
its registry, podman's `registries.conf` by the longest prefix, docker's `daemon.json`; else it is the registry alone.
Files are looked at whenever a name is, and read again when they changed, so a change needs no restart.

Docker Hub's name is not the name of its API. Registries on this machine, and those listed as insecure, may speak
plain HTTP or show a certificate nobody knows; docker does the same for 127.0.0.0/8. An endpoint is where a request
goes: a host, spoken to in one way.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from kestrel.base.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from kestrel.distribution.mirrors import (
    PUSH,
    Host,
    Rule,
    Trust,
    read_daemon_json,
    read_hosts_toml,
    read_registries_conf,
    registry,
)
from kestrel.http.client import is_loopback

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this node deals with other registries."""

    insecure_registries: tuple[str, ...] = ()
    """Hosts (`registry.lan:5000`), or networks (`10.0.0.0/8`), that may speak plain HTTP or be unverified."""
    docker_config: Path | None = None
    """A `config.json` with credentials; None looks nowhere."""
    etc: Path | None = None
    """The directory below which containerd, podman and docker keep their settings, usually `/etc`; None has none."""
    attempts: int = 5
    """How often a request is sent at most before its error is reported."""
    backoff_seconds: float = 0.5
    """The first pause between two attempts; it doubles, and jitter makes it shorter."""
    longest_wait_seconds: float = 60.0
    """The most that one pause may take; a registry that asks for more (Retry-After) is reported instead."""
    part: int = 4 << 20
    """Bytes that one of several requests for a blob asks for; up to four such parts wait in memory."""
    chunk: int = 0
    """Bytes of one PATCH when uploading; 0 sends a blob in one PUT, which every registry takes and most do best."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host spoken to in one way: `base` ends before `/v2/`. `tls` False leaves the certificate unchecked."""

    domain: str
    base: str
    tls: "ssl.SSLContext | bool" = True
    host: Host = field(default=Host(name="", address=""))

    def url(self, path: str) -> str:
        """Return the address of something below `/v2/`."""
        url = f"{self.base}{self.host.root}{self.renamed(path)}"
        if self.host.namespace:
            url += f"{'&' if '?' in url else '?'}ns={self.host.namespace}"
        return url

    def renamed(self, path: str) -> str:
        """Return what a repository, or a path that begins with one, is called on this server."""
        old, new = self.host.renamed
        if not path or old == new or not (not old or path == old or path.startswith(f"{old}/")):
            return path
        return "/".join(filter(None, (new, path[len(old) :].lstrip("/"))))

    def scope(self, scope: str) -> str:
        """Return a token's scope (distribution, spec/auth/scope.md) for the repository's name on this server."""
        kind, _, rest = scope.partition(":")
        path, _, actions = rest.rpartition(":")
        return f"{kind}:{self.renamed(path)}:{actions}" if kind == "repository" else scope


class Hosts:
    """Finds hosts and endpoints; remembers which of TLS and plain HTTP an insecure one turned out to speak."""

    def __init__(self, settings: "Settings | None" = None) -> None:
        settings = settings or Settings()
        self._insecure = tuple(name.lower() for name in settings.insecure_registries)
        self._etc = settings.etc
        self._read: dict[tuple[Path, str], tuple[tuple[int, int], Any]] = {}
        self._chosen: dict[Host, Endpoint] = {}

    # -- who answers

    def of(self, domain: str, repository: str, capability: str) -> Sequence[Host]:
        """Return the hosts to ask for a repository, in order: mirrors first, the last one's answer being final.

        Raises PermissionDenied for a registry that is blocked, FailedPrecondition when no host has the capability,
        InvalidArgument for a file that cannot be read.
        """
        rule = self.rule(domain, repository)
        if rule.blocked:
            raise PermissionDenied(f"registry {rule.prefix} is blocked", hint=f"{rule.source} says so")
        able = [host for host in rule.hosts if capability in host.capabilities]
        if not able:
            raise FailedPrecondition(f"no host of {domain} may {capability}", hint=f"{rule.source} says so")
        return able[:1] if capability == PUSH else able

    def rule(self, domain: str, repository: str = "") -> Rule:
        """Return what holds for a name, and which file says so."""
        rules, listed = self._files(domain)
        name = f"{domain}/{repository}".rstrip("/")
        covering = [rule for rule in rules if rule.covers(name)]
        if not covering:
            insecure = self._is_listed(domain, listed)
            return Rule(prefix=domain, source="", hosts=(registry(domain, insecure=insecure),))
        longest = max(covering, key=lambda rule: len(rule.prefix))  # the first of equals: the files are in their order
        hosts = (host if host.address else replace(registry(domain), insecure=host.insecure) for host in longest.hosts)
        return replace(longest, hosts=tuple(self._marked(host, listed) for host in hosts))

    def _files(self, domain: str) -> tuple[list[Rule], tuple[str, ...]]:
        """Return the rules that may concern a registry, and the names docker may speak to without TLS."""
        if self._etc is None:
            return [], ()
        for name in (domain, f"{hostname(domain)}_{domain.rpartition(':')[2]}_" if ":" in domain else "", "_default"):
            path = self._etc / "containerd/certs.d" / name / "hosts.toml"
            rule = self._parsed(path, lambda text, at: read_hosts_toml(text, domain, at), domain) if name else None
            if rule is not None:
                return [rule], ()
        containers, rules = self._etc / "containers", list[Rule]()
        for path in (containers / "registries.conf", *sorted((containers / "registries.conf.d").glob("*.conf"))):
            rules += self._parsed(path, read_registries_conf) or []
        more, insecure = self._parsed(self._etc / "docker/daemon.json", read_daemon_json) or ([], ())
        return rules + more, insecure

    def _parsed(self, path: Path, read: "Callable[[str, Path], T]", domain: str = "") -> "T | None":
        """Return what a file says (to a registry), None where there is none; it is read again only when it changed."""
        try:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_ino
            kept = self._read.get((path, domain))
            if kept is None or kept[0] != stamp:
                kept = self._read[path, domain] = stamp, read(path.read_text("utf-8"), path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{path} cannot be read: {error}") from error
        found: T = kept[1]
        return found

    def _marked(self, host: Host, listed: Sequence[str]) -> Host:
        return host if host.insecure or not self._is_listed(host.address, listed) else replace(host, insecure=True)

    # -- how one is spoken to

    def candidates(self, host: Host) -> Sequence[Endpoint]:
        """Return the endpoints to try, the first that answers being the one to use.

        A registry elsewhere must speak TLS with a certificate we trust. For one on this machine plain HTTP is the
        rule, for an insecure one elsewhere TLS, and each falls back to the other.
        """
        if chosen := self._chosen.get(host):
            return (chosen,)
        local = is_loopback(hostname(host.address))
        loose = host.insecure or local
        secure = Endpoint(host.name, f"https://{host.address}", _context(self._trusted(host), verify=not loose), host)
        plain = Endpoint(host.name, f"http://{host.address}", host=host)
        if host.scheme:
            return (secure if host.scheme == "https" else plain,)
        if not loose:
            return (secure,)
        return (plain, secure) if local else (secure, plain)

    def choose(self, endpoint: Endpoint) -> None:
        """Remember the endpoint that answered."""
        self._chosen[endpoint.host] = endpoint

    def _trusted(self, host: Host) -> Trust:
        """Return the host's own certificates, or those that docker and podman keep in `certs.d` (docker-certs.d(5))."""
        if self._etc is None or host.trust != Trust():
            return host.trust
        for owner in ("docker", "containers"):
            directory = self._etc / owner / "certs.d" / host.address
            authorities = tuple(sorted(directory.glob("*.crt")))
            shown = tuple((path, path.with_suffix(".key")) for path in sorted(directory.glob("*.cert")))
            if authorities or shown:
                return Trust(authorities=authorities, identities=shown)
        return host.trust

    def _is_listed(self, address: str, more: Sequence[str]) -> bool:
        host = hostname(address)
        return any(name in (address.lower(), host) or _in_network(host, name) for name in (*self._insecure, *more))


@cache
def _context(trust: Trust, *, verify: bool) -> "ssl.SSLContext | bool":
    """Return a context for certificates of a host's own, else whether the system's are asked for."""
    if trust == Trust():
        return verify
    try:
        context = ssl.create_default_context()
        for authority in trust.authorities:
            context.load_verify_locations(authority)
        for certificate, key in trust.identities:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        files = [*trust.authorities, *(path for pair in trust.identities for path in pair)]
        named = ", ".join(str(path) for path in files)
        raise InvalidArgument(f"certificates cannot be used: {error}", hint=f"look at {named}") from error
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


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
