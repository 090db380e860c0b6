"""Answers to a registry's challenge: Basic, or a Bearer token fetched from the token server it names.

The token protocol is the distribution project's (spec/auth: token.md, oauth.md, scope.md): 401 names realm, service
and scope; with a secret the token is asked for by an OAuth POST, and, as several large registries answer that with
400, 401, 404 or 405, then by GET with Basic; without a secret by an anonymous GET. A token is kept per host, identity
and set of scopes until shortly before its end; of many who need the same one at once, one asks and the rest wait.

A secret is sent only to the registry it is for and to the realm that registry named over a connection as good as its
own: a realm on plain HTTP behind a registry on TLS is refused.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
from yarl import URL

from kestrel.base.clock import Clock
from kestrel.base.errors import PermissionDenied, Unauthenticated, Unavailable
from kestrel.distribution.challenges import Challenge
from kestrel.distribution.credentials import Credential, Credentials
from kestrel.distribution.hosts import Endpoint, hostname
from kestrel.distribution.refusals import refusal
from kestrel.http.client import CLIENT_ERRORS, explain, is_loopback, proxy_for

_CLIENT_ID = "kestrel"
_DEFAULT_LIFE = 60.0  # token.md: "for compatibility with older clients, a token should never be returned with less"
_MARGIN = 0.1  # of a token's life, left unused so that it does not end on the way
_LIMIT = 256 * 1024
_NO_OAUTH = frozenset({400, 401, 404, 405})


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    good_until: float


@dataclass(slots=True)
class _Host:
    """What one registry last asked for."""

    basic: bool = False
    bearer: Challenge | None = None
    no_oauth: bool = False


_Key = tuple[str, str, str, frozenset[str]]


class Authorizer:
    """Keeps what registries asked for and the tokens they led to. One per set of credentials."""

    def __init__(self, session: aiohttp.ClientSession, credentials: Credentials, clock: Clock) -> None:
        self._session = session
        self._credentials = credentials
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._tokens: dict[_Key, _Token] = {}
        self._fetching: dict[_Key, asyncio.Task[_Token]] = {}

    async def authorization(self, endpoint: Endpoint, path: str, scopes: Collection[str]) -> str:
        """Return the Authorization header for a request, empty while the registry has not asked for one.

        Raises Unauthenticated when the token server refuses us, Unavailable when it cannot be reached.
        """
        host = self._hosts.get(endpoint.domain)
        if host is None:
            return ""
        credential = await self._credentials.lookup(endpoint.domain, path)
        if host.bearer is not None:
            if credential and credential.registry_token:
                return f"Bearer {credential.registry_token}"
            return f"Bearer {await self._token(endpoint, host, credential, scopes)}"
        if credential and credential.username:
            return _basic(credential)
        return ""

    def challenged(self, endpoint: Endpoint, challenges: list[Challenge], used: str) -> bool:
        """Learn from a 401 that answered a request with the header `used`; returns whether asking again can help.

        A refused token is forgotten: it may have been revoked, or too narrow. Bearer is preferred to Basic.
        """
        bearer = next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
        basic = any(c.scheme == "basic" for c in challenges)
        known = self._hosts.setdefault(endpoint.domain, _Host())
        if used.startswith("Bearer "):
            value = used.removeprefix("Bearer ")
            self._tokens = {key: token for key, token in self._tokens.items() if token.value != value}
        changed = known.bearer != bearer or known.basic != basic
        known.bearer, known.basic = bearer, basic
        return bool(bearer or basic) and (not used or changed or used.startswith("Bearer "))

    async def _token(
        self, endpoint: Endpoint, host: _Host, credential: "Credential | None", scopes: Collection[str]
    ) -> str:
        assert host.bearer is not None
        wanted = frozenset(scopes)  # what we need; what the challenge asked for may be less, as it is for one request
        if not wanted:
            wanted = frozenset(host.bearer.scopes)
        who = credential.username or credential.identity_token if credential else ""
        key = (endpoint.domain, host.bearer.parameters["realm"], who, wanted)
        kept = self._tokens.get(key)
        if kept is not None and kept.good_until > self._clock.monotonic():
            return kept.value
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(endpoint, host, credential, wanted))
            self._fetching[key] = task
            task.add_done_callback(lambda done: self._keep(key, done))
        return (await asyncio.shield(task)).value  # one waiter that gives up must not take the token from the others

    def _keep(self, key: _Key, done: "asyncio.Task[_Token]") -> None:
        self._fetching.pop(key, None)
        if not done.cancelled() and done.exception() is None:
            now = self._clock.monotonic()
            self._tokens = {k: token for k, token in self._tokens.items() if token.good_until > now}
            self._tokens[key] = done.result()

    async def _fetch(
        self, endpoint: Endpoint, host: _Host, credential: "Credential | None", scopes: frozenset[str]
    ) -> _Token:
        assert host.bearer is not None
        realm, service = host.bearer.parameters["realm"], host.bearer.parameters.get("service", "")
        _check_realm(realm, endpoint)
        asked = self._clock.monotonic()
        if credential and not host.no_oauth:
            status, headers, body = await self._oauth(endpoint, realm, service, credential, scopes)
            if status in _NO_OAUTH and not credential.identity_token:
                status, headers, body = await self._plain(endpoint, realm, service, credential, scopes)
                host.no_oauth = status == 200
        else:
            status, headers, body = await self._plain(endpoint, realm, service, credential, scopes)
        if status != 200:
            raise _token_refused(endpoint, realm, credential, status, headers, body)
        return _read_token(body, realm, asked)

    async def _oauth(
        self, endpoint: Endpoint, realm: str, service: str, credential: Credential, scopes: frozenset[str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        form = {"service": service, "client_id": _CLIENT_ID, "scope": " ".join(sorted(scopes))}
        if credential.identity_token:
            form |= {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
        else:
            form |= {"grant_type": "password", "username": credential.username, "password": credential.password}
        return await self._ask(endpoint, realm, lambda **more: self._session.post(URL(realm), data=form, **more))

    async def _plain(
        self, endpoint: Endpoint, realm: str, service: str, credential: "Credential | None", scopes: frozenset[str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in sorted(scopes)]
        headers = {}
        if credential and credential.username:
            query.append(("account", credential.username))
            headers["Authorization"] = _basic(credential)
        url = realm + ("&" if urlsplit(realm).query else "?") * bool(query) + urlencode(query)
        return await self._ask(
            endpoint, realm, lambda **more: self._session.get(URL(url, encoded=True), headers=headers, **more)
        )

    async def _ask(
        self, endpoint: Endpoint, realm: str, send: Callable[..., Awaitable[aiohttp.ClientResponse]]
    ) -> tuple[int, Mapping[str, str], bytes]:
        same_host = urlsplit(realm).netloc == urlsplit(endpoint.base).netloc
        tls = endpoint.tls if same_host else True
        try:
            # A redirect would carry a password to a place the registry did not name.
            answer = await send(allow_redirects=False, ssl=tls, proxy=proxy_for(realm))
            async with answer:
                return answer.status, answer.headers, await _bounded(answer)
        except CLIENT_ERRORS as error:
            cause = explain(error, realm)
            raise Unavailable(f"cannot get a token for {endpoint.domain}: {cause}", hint=cause.hint) from error


def _basic(credential: Credential) -> str:
    """Return the header of RFC 7617, in UTF-8."""
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()


def _check_realm(realm: str, endpoint: Endpoint) -> None:
    parts = urlsplit(realm)
    plain_is_fine = endpoint.base.startswith("http:") or is_loopback(parts.hostname or "") or endpoint.tls is False
    if parts.scheme == "https" or (parts.scheme == "http" and plain_is_fine):
        return
    raise PermissionDenied(
        f"{endpoint.domain} sends us to {realm[:200]!r} for a token, which is not protected by TLS",
        hint=f"list {hostname(endpoint.domain)} as insecure if you accept that",
    )


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for part in answer.content.iter_any():
        data += part
        if len(data) > _LIMIT:
            raise Unavailable("the answer of the token server is too large")
    return bytes(data)


def _token_refused(
    endpoint: Endpoint,
    realm: str,
    credential: "Credential | None",
    status: int,
    headers: Mapping[str, str],
    body: bytes,
) -> Exception:
    where = urlsplit(realm).netloc
    if status in (400, 401, 403):
        if credential is None:
            return Unauthenticated(
                f"{where} gives no anonymous access to {endpoint.domain}",
                hint=f"`kestrel login {endpoint.domain}` stores credentials, in a Pod name an imagePullSecret",
            )
        who = credential.username or "the identity token"
        return Unauthenticated(
            f"{where} does not accept the credentials of {who} for {endpoint.domain}",
            hint=f"log in again: `kestrel login {endpoint.domain}`",
        )
    return refusal(status, headers, body, domain=where, what=f"a token for {endpoint.domain}")


def _read_token(body: bytes, realm: str, asked: float) -> _Token:
    """Read the answer; `asked` is when the request left, which is never later than when the token was made."""
    try:
        answer: Any = json.loads(body)
        value = answer.get("token") or answer.get("access_token")
        life = float(answer.get("expires_in") or _DEFAULT_LIFE)
    except (ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"the answer of the token server at {realm} cannot be read") from error
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise Unavailable(f"the answer of the token server at {realm} holds no token")
    life = max(life, _DEFAULT_LIFE)
    return _Token(value, asked + life * (1 - _MARGIN))
