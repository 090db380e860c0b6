"""The decision about each request: who it is from, and whether that one may do this.

Without any account everybody may do everything; the daemon then listens on the loopback address only. With accounts, a
request shows a token (Bearer) or a name with a password or key (Basic). Who shows nothing is `anonymous`, and may do
what that account was granted.

A refusal is 401 with a challenge when logging in, or a token for more, can help, and 403 when it cannot. It says the
same of repositories that do not exist as of those that one may not see. `/v2/` answers 401 to the anonymous even where
they may read, as docker asks there whether it has to log in.

What a header was found to mean is remembered for a while, since bcrypt takes a twentieth of a second; a change of
accounts or grants forgets it all.
"""

import asyncio
import base64
import os
import time
from dataclasses import dataclass
from hashlib import blake2b

from aiohttp import web

from kestrel.registry.access.accounts import Accounts, Roster
from kestrel.registry.access.model import ANONYMOUS, OPEN, PULL, Principal, named
from kestrel.registry.access.tokens import Tokens
from kestrel.registry.errors import Refusal

_REMEMBERED = 4096
_SECONDS = 300.0
_CHECKS = 2  # passwords checked at once
_WAITING = 64  # and waiting for that


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request is for. Without a repository it only wants to know whether it is let in.

    `source` is where a blob is to be mounted from. Who may not read there still gets in, and sends the blob.
    """

    repository: str = ""
    actions: tuple[str, ...] = ()
    source: str = ""

    @property
    def scope(self) -> str:
        """The same in the words of a challenge."""
        scope = f"repository:{self.repository}:{','.join(self.actions)}" if self.repository else ""
        return f"{scope} repository:{self.source}:{PULL}" if self.source else scope


class Gate:
    """Asked by the door before anything else."""

    def __init__(self, accounts: Accounts, *, service: str = "kestrel-registry", url: str = "") -> None:
        self.accounts = accounts
        self.service = service
        self._url = url.rstrip("/")
        self._tokens: Tokens | None = None
        self._known: dict[bytes, tuple[Principal, float, int]] = {}
        self._salt = os.urandom(16)
        self._checks = asyncio.Semaphore(_CHECKS)
        self._waiting = 0

    @property
    def tokens(self) -> Tokens:
        """What makes and reads tokens; made when first needed."""
        if self._tokens is None:
            self._tokens = Tokens(self.accounts.signing_secret, self.service)
        return self._tokens

    @property
    def open(self) -> bool:
        """Whether there are no accounts, and everybody may do everything."""
        return self.accounts.current().empty

    def remembered(self, header: str) -> "Principal | None":
        """Return whom a header was found to be of, when that still holds; nothing is awaited or computed."""
        roster = self.accounts.current()
        if roster.empty:
            return OPEN
        found = self._known.get(self._mark(header))
        if found is None or found[2] != roster.number or found[1] < time.time():
            return None
        return found[0]

    async def admit(self, request: web.BaseRequest, wanted: Wanted) -> Principal:
        """Return whom the request is from; raises Refusal when that one may not do what is wanted."""
        principal = await self.principal(request)
        if principal.everything:
            return principal
        if not wanted.repository:
            if principal.is_anonymous:
                raise self._challenge(request, wanted, principal)
            return principal
        lacking = [action for action in wanted.actions if not principal.may(action, wanted.repository)]
        narrow = wanted.source and principal.scopes is not None and not principal.may(PULL, wanted.source)
        if lacking or (narrow and PULL in principal.granted(wanted.source)):
            raise self._challenge(request, wanted, principal)
        return principal

    async def principal(self, request: web.BaseRequest) -> Principal:
        """Return whom a request is from; raises Refusal for a wrong password, key or token."""
        header = request.headers.get("Authorization", "")
        found = self.remembered(header)
        if found is not None:
            return found
        roster = self.accounts.current()
        good_until = time.time() + _SECONDS
        scheme, _, value = header.partition(" ")
        if not header:
            found = Principal(ANONYMOUS, named(roster.grants, ANONYMOUS))
        elif scheme.lower() == "bearer":
            found, good_until = self._by_token(request, roster, value.strip())
        elif scheme.lower() == "basic":
            name, secret = decode_basic(value)
            if not await self.authenticate(name, secret):
                raise self._unauthorized(request, "the name or the password is wrong")
            found = Principal(name, named(roster.grants, name))
        else:
            raise self._unauthorized(request, f"cannot read a login of the kind {scheme[:40]!r}")
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[self._mark(header)] = found, good_until, roster.number
        return found

    def _mark(self, header: str) -> bytes:
        """Return what stands for a header in memory, where no password is to lie around."""
        return (
            blake2b(header.encode(errors="surrogateescape"), digest_size=16, key=self._salt).digest() if header else b""
        )

    async def authenticate(self, name: str, secret: str) -> bool:
        """Whether a secret is the account's; raises Refusal when too many ask at once."""
        if self._waiting >= _WAITING:
            raise Refusal("TOOMANYREQUESTS", "too many logins at once", headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            async with self._checks:
                return await asyncio.to_thread(self.accounts.check, name, secret)
        finally:
            self._waiting -= 1

    def _by_token(self, request: web.BaseRequest, roster: Roster, text: str) -> tuple[Principal, float]:
        token = self.tokens.read(text)
        gone = token is not None and token.account != ANONYMOUS and token.account not in roster.accounts
        if token is None or gone:
            raise self._unauthorized(request, "the token is not good, or not any more")
        return Principal(token.account, named(roster.grants, token.account), scopes=token.scopes), token.expires

    def _challenge(self, request: web.BaseRequest, wanted: Wanted, principal: Principal) -> Refusal:
        granted = principal.granted(wanted.repository)
        beyond = [action for action in wanted.actions if action not in granted]
        if beyond and not principal.is_anonymous:
            return Refusal("DENIED", f"{principal.name} may not {' or '.join(beyond)} in {wanted.repository}")
        what = f"{' and '.join(wanted.actions)} in {wanted.repository}" if wanted.repository else "this registry"
        return self._unauthorized(request, f"logging in is needed for {what}", wanted)

    def _unauthorized(self, request: web.BaseRequest, message: str, wanted: Wanted = Wanted()) -> Refusal:
        parameters = f'realm="{self.realm(request)}",service="{self.service}"'
        if wanted.scope:
            parameters += f',scope="{wanted.scope}"'
        return Refusal("UNAUTHORIZED", message, headers={"WWW-Authenticate": f"Bearer {parameters}"})

    def realm(self, request: web.BaseRequest) -> str:
        """Return where tokens are had, under the name by which the client reached us."""
        if self._url:
            return f"{self._url}/token"
        host = "".join(c for c in request.headers.get("Host", "") if c.isalnum() or c in "-.:[]_")
        return f"{request.scheme}://{host}/token"


def decode_basic(value: str) -> tuple[str, str]:
    """Return name and secret of a Basic header (RFC 7617); raises Refusal when it cannot be read."""
    try:
        name, colon, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError as error:
        raise Refusal("UNAUTHORIZED", "cannot read the Basic login", status=400) from error
    if not colon:
        raise Refusal("UNAUTHORIZED", "the Basic login has no colon", status=400)
    return name, secret


def may_pull_somewhere(principal: Principal) -> bool:
    """Whether there can be any repository that this one may read."""
    return principal.everything or any(PULL in grant.actions for grant in principal.grants)
