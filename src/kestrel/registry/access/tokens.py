"""Tokens of the distribution project's protocol (spec/auth: token.md, jwt.md): who, for how long, for which scopes.

They are signed with a secret that only this registry has, as it is the only one that reads them. What a token gives
is never more than its account may do at the moment it is used: a grant that was taken back is gone at once, not when
the token ends.
"""

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

LIFE: Final = 300
"""Seconds a token is good for; docker asks for a new one for each push and pull."""
_ISSUER = "kestrel-registry"


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says."""

    account: str
    scopes: Mapping[str, frozenset[str]]
    expires: float


class Tokens:
    """Makes and reads tokens."""

    def __init__(self, secret: bytes, service: str) -> None:
        from joserfc.jwk import OctKey  # 100 ms that a registry without accounts never needs

        self._key = OctKey.import_key(secret)
        self._service = service

    def make(self, account: str, scopes: Mapping[str, Iterable[str]]) -> str:
        """Return a token for these actions by repository."""
        from joserfc import jwt

        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "aud": self._service,
            "sub": account,
            "iat": now,
            "nbf": now - 5,
            "exp": now + LIFE,
            "jti": secrets.token_hex(8),
            "access": [
                {"type": "repository", "name": name, "actions": sorted(actions)} for name, actions in scopes.items()
            ],
        }
        return jwt.encode({"alg": "HS256"}, claims, self._key)

    def read(self, text: str) -> "Token | None":
        """Return what a token says, None when it is not one of ours or over."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            claims = jwt.decode(text, self._key, algorithms=["HS256"]).claims
            jwt.JWTClaimsRegistry(
                iss={"essential": True, "value": _ISSUER},
                aud={"essential": True, "value": self._service},
                exp={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError):
            return None
        return Token(str(claims["sub"]), _scopes(claims.get("access")), float(claims["exp"]))


def _scopes(access: Any) -> dict[str, frozenset[str]]:
    return {entry["name"]: frozenset(entry["actions"]) for entry in access or ()}
