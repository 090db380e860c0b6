"""Who we are to a registry: docker's `config.json`, its helper programs, and Kubernetes pull secrets.

All of them speak the same JSON (docker/cli's `configfile` and `types.AuthConfig`): `auths` with `auth` (base64 of
`user:password`), or `username` and `password`, or an `identitytoken`; `credHelpers` for one host, `credsStore` for
all. The order is docker's: a helper for the host, the store, then `auths`. Keys are hosts, but also URLs as old
clients wrote them, host with a path (podman), and in pull secrets patterns such as `*.example.com/team`
(Kubernetes, "Pull an Image from a Private Registry"). The key that says most about the repository wins.

A secret never appears in an error, a log line or a `repr`.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from kestrel.base import proc
from kestrel.base.errors import InvalidArgument, KestrelError, NotFound, Unavailable

_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TOKEN_USER = "<token>"  # docker-credential-helpers' name for "the secret is an identity token"
_HELPER_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One identity. With an identity token (an OAuth refresh token) or a ready registry token no password is needed."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


class Credentials(Protocol):
    """What knows identities."""

    async def lookup(self, domain: str, path: str = "") -> "Credential | None":
        """Return the identity to use at a registry (and there for a repository), or None to go anonymously."""
        ...


class Anonymous:
    """Nobody."""

    async def lookup(self, domain: str, path: str = "") -> "Credential | None":
        """Return None."""
        del domain, path
        return None


@dataclass(frozen=True, slots=True)
class Fixed:
    """One identity for one registry: what a person typed, or what the API was given."""

    domain: str
    credential: Credential

    async def lookup(self, domain: str, path: str = "") -> "Credential | None":
        """Return it when the registry is the one it was given for."""
        del path
        return self.credential if canonical(domain) == canonical(self.domain) else None


@dataclass(frozen=True, slots=True)
class Chain:
    """Several sources, the first that knows the registry wins."""

    sources: Sequence[Credentials]

    async def lookup(self, domain: str, path: str = "") -> "Credential | None":
        """Ask each in turn."""
        for source in self.sources:
            if found := await source.lookup(domain, path):
                return found
        return None


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The part of docker's configuration that is about identities."""

    auths: Mapping[str, Credential] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""

    @classmethod
    def parse(cls, data: "bytes | str", *, source: str = "docker config") -> "DockerConfig":
        """Read `config.json` or the value of a `.dockerconfigjson` secret; raises InvalidArgument."""
        try:
            raw = json.loads(data)
        except ValueError as error:
            raise InvalidArgument(f"{source} is not JSON") from error
        if not isinstance(raw, dict):
            raise InvalidArgument(f"{source} is not a JSON object")
        helpers, store = raw.get("credHelpers") or {}, raw.get("credsStore") or ""
        if not isinstance(helpers, dict) or not isinstance(store, str):
            raise InvalidArgument(f"{source} has credential helpers of the wrong type")
        return cls(_auths(raw.get("auths"), source), {str(k): str(v) for k, v in helpers.items()}, store)

    @classmethod
    def parse_legacy(cls, data: "bytes | str", *, source: str = "pull secret") -> "DockerConfig":
        """Read the older `.dockercfg` form, which is the `auths` object alone."""
        try:
            raw = json.loads(data)
        except ValueError as error:
            raise InvalidArgument(f"{source} is not JSON") from error
        return cls(_auths(raw, source))

    @classmethod
    def load(cls, path: Path) -> "DockerConfig":
        """Read a file; one that does not exist knows nobody."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise Unavailable(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}") from error
        return cls.parse(data, source=str(path))

    async def lookup(self, domain: str, path: str = "") -> "Credential | None":
        """Ask the helper of the host, the store, the file. Raises Unavailable when a helper that is named fails."""
        helper = self.helper(domain)
        if helper and ((found := await _from_helper(helper, server_key(domain))) or helper != self.store):
            return found
        return best_match(self.auths, canonical(domain), path)

    def helper(self, domain: str) -> str:
        """Return the name of the program that keeps the registry's credentials, empty when this file does."""
        own = (name for key, name in self.helpers.items() if canonical(key) == canonical(domain))
        return next(own, self.store)


@dataclass(frozen=True, slots=True)
class FileConfig:
    """A `config.json` read anew at each lookup: a `kestrel login` takes effect without a restart."""

    path: Path

    async def lookup(self, domain: str, path: str = "") -> "Credential | None":
        """Look into the file as it is now."""
        return await DockerConfig.load(self.path).lookup(domain, path)


def best_match(auths: Mapping[str, Credential], host: str, path: str) -> "Credential | None":
    """Return the identity under the most specific key that covers `host/path`."""
    fitting = [(specific, auths[key]) for key in auths if (specific := _covers(key, host, path))]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _covers(key: str, host: str, path: str) -> "tuple[int, int] | None":
    """Return how specific a key is for this repository (path, literal characters), None when it is not for it."""
    pattern, _, prefix = _strip(key).partition("/")
    prefix = prefix.strip("/")
    if prefix in ("v1", "v2"):
        prefix = ""
    wanted = _HUB if pattern in _HUB_HOSTS else pattern.lower()
    if "*" in wanted or "?" in wanted:
        # Kubernetes: a `*` stands for part of one name between dots, never for several.
        theirs, ours = wanted.split("."), host.split(".")
        if len(theirs) != len(ours) or not all(map(fnmatchcase, ours, theirs)):
            return None
    elif wanted != host:
        return None
    if prefix and not f"{path}/".startswith(f"{prefix}/"):
        return None
    return len(prefix) + 1, len(wanted.replace("*", "")) + 1


def _strip(key: str) -> str:
    return key.strip().removeprefix("https://").removeprefix("http://")


def server_key(domain: str) -> str:
    """Return what docker calls a registry in its configuration and to its helpers."""
    return _HUB_KEY if canonical(domain) == _HUB else domain


def canonical(key: str) -> str:
    """Return the host that a key of docker's configuration is about."""
    host = _strip(key).partition("/")[0].lower()
    return _HUB if host in _HUB_HOSTS else host


def _auths(raw: Any, source: str) -> dict[str, Credential]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidArgument(f"{source}: auths is not an object")
    return {str(key): found for key, entry in raw.items() if (found := _credential(entry, str(key), source))}


def _credential(entry: Any, key: str, source: str) -> "Credential | None":
    if not isinstance(entry, dict):
        raise InvalidArgument(f"{source}: the entry for {key} is not an object")
    username, password = entry.get("username") or "", entry.get("password") or ""
    if auth := entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError, TypeError):
            colon = ""
        if not colon:
            raise InvalidArgument(f"{source}: auth for {key} is not base64 of user:password")
        password = password.rstrip("\0")
    token = entry.get("identitytoken") or ""
    if username == _TOKEN_USER:
        username, password, token = "", "", password
    found = Credential(
        username=str(username),
        password=str(password),
        identity_token=str(token),
        registry_token=str(entry.get("registrytoken") or ""),
    )
    return found or None


async def ask_helper(name: str, verb: str, question: bytes, server: str) -> "bytes | None":
    """Speak docker-credential-helpers' protocol: the question on stdin, the answer on stdout, None for "not found".

    Raises Unavailable when the helper is not installed, or fails.
    """
    if not _HELPER_NAME.fullmatch(name):
        raise InvalidArgument(f"invalid credential helper name {name!r}")
    program = f"docker-credential-{name}"
    try:
        done = await proc.run([program, verb], input=question, timeout=_HELPER_SECONDS)
    except NotFound as error:
        raise Unavailable(
            f"credential helper {program} is not installed", hint="install it, or remove it from docker's config.json"
        ) from error
    except KestrelError as error:
        raise Unavailable(f"credential helper {program} failed: {error}") from error
    if done.status != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        if "credentials not found" in said:
            return None
        raise Unavailable(f"credential helper {program} failed for {server}: {said[:200]}")
    return done.stdout


async def _from_helper(name: str, server: str) -> "Credential | None":
    told = await ask_helper(name, "get", server.encode(), server)
    if told is None:
        return None
    try:
        answer = json.loads(told)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"credential helper docker-credential-{name} gave an answer that cannot be read") from error
    if username == _TOKEN_USER:
        return Credential(identity_token=secret)
    return Credential(username=username, password=secret)


def pull_secrets(secrets: Iterable["tuple[str, bytes]"]) -> "Credentials":
    """Return what Kubernetes secrets say: pairs of type (`kubernetes.io/dockerconfigjson`, ...) and decoded data.

    All entries count as one table, so that the most specific key wins whichever secret it is in; among equals the
    first. Raises InvalidArgument for data that is no such JSON or a type that carries none.
    """
    auths: dict[str, Credential] = {}
    for kind, data in secrets:
        if kind == "kubernetes.io/dockerconfigjson":
            found = DockerConfig.parse(data, source="pull secret")
        elif kind == "kubernetes.io/dockercfg":
            found = DockerConfig.parse_legacy(data)
        else:
            raise InvalidArgument(
                f"a secret of type {kind or 'Opaque'!r} holds no registry credentials",
                hint="create it with `kubectl create secret docker-registry`",
            )
        for key, credential in found.auths.items():
            auths.setdefault(key, credential)
    return DockerConfig(auths)
