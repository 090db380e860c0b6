"""The token server (distribution, spec/auth: token.md and oauth.md): GET with Basic, POST with a form.

It answers with a token for as much of what is asked for as the account may do, perhaps for nothing; the registry says
no when it is used. With `offline_token=true` or `access_type=offline` a login also gets an identity token: a secret of
its own that docker keeps instead of the password, listed and ended like a key.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from kestrel.http.server import body
from kestrel.registry.access.gate import Gate, decode_basic
from kestrel.registry.access.model import ACTIONS, ANONYMOUS, Principal, named
from kestrel.registry.access.tokens import LIFE
from kestrel.registry.errors import API_VERSION, Refusal

_FORM_LIMIT = 64 * 1024
_MOST_SCOPES = 64
_SESSION_DAYS: Final = 90
_SCOPE = re.compile(r"repository(?:\([a-z0-9]+\))?:(?P<name>[^\s]+):(?P<actions>[a-z*,]*)")


class TokenServer:
    """The `/token` endpoint."""

    def __init__(self, gate: Gate, *, idle_seconds: float) -> None:
        self._gate = gate
        self._idle = idle_seconds

    async def get(self, request: web.BaseRequest) -> web.StreamResponse:
        """GET: who shows Basic gets a token of its own, who shows nothing one of the anonymous."""
        header = request.headers.get("Authorization", "")
        scopes = " ".join(request.query.getall("scope", []))
        if not header:
            return self._answer(ANONYMOUS, scopes, "")
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            raise Refusal("UNAUTHORIZED", "a token is given for a name and a password", status=401)
        name, secret = decode_basic(value)
        await self._authenticate(name, secret)
        offline = request.query.get("offline_token", "") == "true"
        identity = await self._session(name, request.query.get("client_id", "")) if offline else ""
        return self._answer(name, scopes, identity)

    async def post(self, request: web.BaseRequest) -> web.StreamResponse:
        """POST: `grant_type=password`, or `refresh_token` with an identity token."""
        data = await body(request, _FORM_LIMIT, idle_seconds=self._idle)
        if data is None:
            raise Refusal("SIZE_INVALID", f"a form has at most {_FORM_LIMIT} bytes", status=413)
        try:
            form = {name: values[-1] for name, values in parse_qs(data.decode(), max_num_fields=64).items()}
        except ValueError as error:
            raise Refusal("UNSUPPORTED", "cannot read the form", status=400) from error
        grant, scopes = form.get("grant_type", ""), form.get("scope", "")
        if grant == "password":
            name = form.get("username", "")
            await self._authenticate(name, form.get("password", ""))
            offline = form.get("access_type", "") == "offline"
            identity = await self._session(name, form.get("client_id", "")) if offline else ""
            return self._answer(name, scopes, identity)
        if grant == "refresh_token":
            identity = form.get("refresh_token", "")
            key = self._gate.accounts.key(identity)
            if key is None or key.account not in self._gate.accounts.current().accounts:
                raise Refusal("UNAUTHORIZED", "the identity token is not good any more: log in again")
            return self._answer(key.account, scopes, identity)
        raise Refusal("UNSUPPORTED", f"unknown grant_type {grant[:40]!r}", status=400)

    async def _authenticate(self, name: str, secret: str) -> None:
        if not await self._gate.authenticate(name, secret):
            raise Refusal("UNAUTHORIZED", "the name or the password is wrong")

    async def _session(self, name: str, client: str) -> str:
        """Return an identity token; the one a client had before stays good, as it may be on another machine."""
        add, label = self._gate.accounts.add_key, client[:40] or "login"
        return await asyncio.to_thread(add, name, label=label, days=_SESSION_DAYS, kind="session")

    def _answer(self, name: str, scopes: str, identity: str) -> web.Response:
        roster = self._gate.accounts.current()
        principal = Principal(name, named(roster.grants, name), everything=roster.empty)
        token = self._gate.tokens.make(name, granted(principal, scopes.split()))
        document: dict[str, object] = {
            "token": token,
            "access_token": token,
            "expires_in": LIFE,
            "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if identity:
            document["refresh_token"] = identity
        headers = {**API_VERSION, "Content-Type": "application/json", "Cache-Control": "no-store"}
        return web.Response(body=msgspec.json.encode(document), headers=headers)


def granted(principal: Principal, scopes: Iterable[str]) -> Mapping[str, set[str]]:
    """Return what of the scopes asked for the account may do, by repository; what is not understood is nothing."""
    given: dict[str, set[str]] = {}
    for scope in list(scopes)[:_MOST_SCOPES]:
        match = _SCOPE.fullmatch(scope)
        if match is None:
            continue
        wanted = set(match["actions"].split(","))
        if "*" in wanted:
            wanted |= {*ACTIONS}
        given.setdefault(match["name"], set()).update(wanted & principal.granted(match["name"]))
    return {name: actions for name, actions in given.items() if actions}
