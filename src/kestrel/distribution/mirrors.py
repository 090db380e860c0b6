"""Who else may answer for a registry: containerd's hosts.toml, podman's registries.conf, docker's daemon.json.

The three say the same in three ways, so each is read into one model: a `Rule` for the names that begin with its
prefix, with the hosts to ask, in order. The sources are containerd docs/hosts.md, containers-registries.conf(5) and
dockerd(8). This module reads text; `kestrel.distribution.hosts` decides which rule holds.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.http.client import is_loopback

HUB = "docker.io"
HUB_API = "registry-1.docker.io"
RESOLVE, PULL, PUSH = "resolve", "pull", "push"
ALL = frozenset({RESOLVE, PULL, PUSH})
_READ = frozenset({RESOLVE, PULL})
_HOST_FIELDS = frozenset(
    {"capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout", "server", "host"}
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose certificates are believed besides the system's, and which is shown when asked; all are PEM files."""

    authorities: tuple[Path, ...] = ()
    identities: tuple[tuple[Path, Path], ...] = ()
    """Certificate and key, which may be one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One server that may answer (containerd's RegistryHost, podman's pull source)."""

    name: str
    """What credentials are looked up by, and what errors call it."""
    address: str
    """`host[:port]` to connect to."""
    scheme: str = ""
    """`http` or `https`; empty for what the rules about insecure registries say."""
    insecure: bool = False
    root: str = "/v2/"
    capabilities: frozenset[str] = ALL
    trust: Trust = Trust()
    headers: tuple[tuple[str, str], ...] = ()
    connect_seconds: float | None = None
    namespace: str = ""
    """The registry whose content is meant, sent as `?ns=` (distribution-spec, "Registry Proxying")."""
    renamed: tuple[str, str] = ("", "")
    """Beginning of the repository's path, and what stands there instead on this server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What holds for names that begin with `prefix`: the hosts to ask, the registry's own last."""

    prefix: str
    source: str
    """The file that says so."""
    hosts: tuple[Host, ...]
    blocked: bool = False

    def covers(self, name: str) -> bool:
        """Whether `host/path` is one of the names; `*.example.org` covers hosts below example.org."""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].partition(":")[0].endswith(self.prefix[1:])
        return name == self.prefix or name.startswith(self.prefix.rstrip("/") + "/")


def registry(domain: str, *, insecure: bool = False) -> Host:
    """Return the host that a registry's name itself stands for."""
    return Host(name=domain, address=HUB_API if domain == HUB else domain, insecure=insecure)


def read_hosts_toml(text: str, domain: str, source: Path) -> Rule:
    """Read the `hosts.toml` of one registry; paths in it are relative to its directory. Raises InvalidArgument."""
    raw = _toml(text, source)
    tables = raw.get("host", {})
    if not isinstance(tables, dict):
        raise InvalidArgument(f"{source}: `host` has to be a table of hosts")
    hosts = [_host(url, fields, domain, source) for url, fields in tables.items()]
    own = {name: value for name, value in raw.items() if name not in ("server", "host")}
    if own or "server" in raw:
        address = f"https://{registry(domain).address}"
        hosts.append(_host(raw.get("server", address), own, domain, source))
    else:
        hosts.append(registry(domain))
    return Rule(prefix=domain, source=str(source), hosts=tuple(hosts))


def _host(url: Any, fields: Any, domain: str, source: Path) -> Host:
    if not isinstance(url, str) or not isinstance(fields, dict):
        raise InvalidArgument(f"{source}: {url!r} has to be an address with a table of settings")
    for name in fields:
        if name not in _HOST_FIELDS:
            near = nearest(name, sorted(_HOST_FIELDS))
            raise InvalidArgument(f"{source}: unknown setting {name!r}", hint=f"did you mean {near}?" if near else None)
    scheme, address, path = _split(url, source)
    root = f"{path}/" if fields.get("override_path") or path.endswith("/v2") else f"{path}/v2/"
    wanted = _strings(fields.get("capabilities", sorted(ALL)), "capabilities", source)
    if unknown := set(wanted) - ALL:
        raise InvalidArgument(f"{source}: unknown capability {min(unknown)!r}", hint="there are pull, resolve and push")
    own = address in (domain, HUB_API if domain == HUB else domain)
    return Host(
        name=domain if own else address,
        address=address,
        scheme=scheme or ("http" if is_loopback(address.rpartition(":")[0] or address) else "https"),
        insecure=bool(fields.get("skip_verify", False)),
        root=root,
        capabilities=frozenset(wanted),
        trust=_trust(fields, source),
        headers=_headers(fields.get("header", {}), source),
        connect_seconds=_duration(fields.get("dial_timeout"), source),
        namespace="" if own else domain,
    )


def _split(url: str, source: "Path | str") -> tuple[str, str, str]:
    """Return scheme (empty where none is given), `host[:port]` and path without its last slash."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    if parts.scheme not in ("", "http", "https") or not parts.hostname or parts.username or parts.query:
        raise InvalidArgument(f"{source}: {url!r} is no address of a registry", hint="write https://host[:port][/path]")
    return parts.scheme, parts.netloc.lower(), parts.path.rstrip("/")


def _trust(fields: Mapping[str, Any], source: Path) -> Trust:
    def path(text: str) -> Path:
        return source.parent / text

    authorities = tuple(path(text) for text in _strings(fields.get("ca", []), "ca", source))
    identities = []
    given = fields.get("client", [])
    for each in [given] if isinstance(given, str) else given:
        pair = [each] if isinstance(each, str) else each
        files = [path(text) for text in _strings(pair, "client", source)]
        if not 1 <= len(files) <= 2:
            raise InvalidArgument(f"{source}: a `client` is a certificate and its key")
        identities.append((files[0], files[-1]))
    return Trust(authorities=authorities, identities=tuple(identities))


def _headers(raw: Any, source: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, dict):
        raise InvalidArgument(f"{source}: `header` has to be a table")
    pairs = [(str(name), value) for name, given in raw.items() for value in _strings(given, name, source)]
    for name, value in pairs:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not value.isprintable():
            raise InvalidArgument(f"{source}: {name!r} cannot be a header")
    return tuple(pairs)


def _duration(raw: Any, source: Path) -> "float | None":
    if raw is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(raw))
    if not match:
        raise InvalidArgument(f"{source}: invalid dial_timeout {raw!r}", hint='write a duration such as "1s"')
    return float(match[1]) * _SECONDS[match[2]]


def read_registries_conf(text: str, source: Path) -> list[Rule]:
    """Read version 2 of `registries.conf`. Raises InvalidArgument.

    Short names are not searched for here: a name means what docker takes it for.
    """
    raw = _toml(text, source).get("registry", [])
    if not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
        raise InvalidArgument(f"{source}: `registry` has to be written as [[registry]]")
    return [_registry_rule(each, source) for each in raw]


def _registry_rule(raw: Mapping[str, Any], source: Path) -> Rule:
    prefix, location = str(raw.get("prefix", "")), str(raw.get("location", ""))
    if not prefix and not location:
        raise InvalidArgument(f"{source}: a [[registry]] needs a prefix or a location")
    prefix, mirrors = prefix or location, raw.get("mirror", [])
    digests = bool(raw.get("mirror-by-digest-only", False))
    hosts = [_source(prefix, each, source, mirror=True, digests=digests) for each in mirrors]
    own = {"location": location or prefix, "insecure": raw.get("insecure", False)}
    hosts.append(_source(prefix, own, source, mirror=False, digests=False))
    return Rule(prefix=prefix, source=str(source), hosts=tuple(hosts), blocked=bool(raw.get("blocked", False)))


def _source(prefix: str, raw: Mapping[str, Any], source: Path, *, mirror: bool, digests: bool) -> Host:
    """Return a place to pull from: what `prefix` covers lies below `location` there."""
    location = str(raw.get("location", ""))
    if prefix.startswith("*.") and not mirror:
        # Any host of the domain stands for itself: hosts.py puts the name asked for in.
        return Host(name="", address="", insecure=bool(raw.get("insecure", False)))
    _, address, path = _split(location, source)
    below = prefix.partition("/")[2]
    if mirror and raw.get("pull-from-mirror") == "digest-only":
        digests = True
    # A mirror "for tags only" is asked for digests too: whoever serves them, they are checked.
    return Host(
        name=address,
        address=HUB_API if address == HUB else address,
        insecure=bool(raw.get("insecure", False)),
        capabilities=(frozenset({PULL}) if digests else _READ) if mirror else ALL,
        renamed=(below, path.strip("/")) if below != path.strip("/") else ("", ""),
    )


def read_daemon_json(text: str, source: Path) -> tuple[list[Rule], tuple[str, ...]]:
    """Read docker's `daemon.json`: its mirrors, which are Docker Hub's, and its insecure registries."""
    try:
        raw = json.loads(text or "{}")
    except ValueError as error:
        raise InvalidArgument(f"{source} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise InvalidArgument(f"{source} is not a JSON object")
    insecure = tuple(_strings(raw.get("insecure-registries", []), "insecure-registries", source))
    mirrors = []
    for url in _strings(raw.get("registry-mirrors", []), "registry-mirrors", source):
        scheme, address, path = _split(url, source)
        mirrors.append(Host(name=address, address=address, scheme=scheme, root=f"{path}/v2/", capabilities=_READ))
    if not mirrors:
        return [], insecure
    return [Rule(prefix=HUB, source=str(source), hosts=(*mirrors, registry(HUB)))], insecure


def _toml(text: str, source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{source} cannot be read: {error}") from error


def _strings(raw: Any, name: str, source: Path) -> Iterable[str]:
    values = [raw] if isinstance(raw, str) else raw
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidArgument(f"{source}: `{name}` has to be a string or a list of strings")
    return values
