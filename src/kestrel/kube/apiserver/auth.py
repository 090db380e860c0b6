"""Who a request comes from, and what it may do.

Authentication, in this order: a client certificate that the node's authority signed (common name is the user,
organisations are groups), a bearer token from the table the server was given, a service account token. Credentials
that are there and wrong are refused (401) and never become anonymous.

Authorization is a short policy until RBAC objects come:
- `system:masters` may do everything. The kubeconfig the platform writes is a member.
- Everyone who is known may read discovery, OpenAPI and the version, and ask what they are and may do (self reviews).
- Service accounts and other known users may do nothing else.
- Strangers may read `/version` and the health endpoints.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kestrel.base.errors import PermissionDenied
from kestrel.kube.api import status
from kestrel.kube.apiserver.call import ANONYMOUS, AUTHENTICATED, Caller
from kestrel.kube.apiserver.tokens import TokenSigner, account_of
from kestrel.kube.store import ObjectStore

PUBLIC_PATHS = frozenset({"/version", "/version/", "/healthz", "/livez", "/readyz"})
_KNOWN_PATHS = (
    "/api",
    "/apis",
    "/openapi",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/.well-known/openid-configuration",
)
_SELF_REVIEWS = frozenset({"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What is asked: a verb on a resource, or on a path that is none."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Authenticator:
    """Finds the caller of a request."""

    def __init__(self, store: ObjectStore, signer: TokenSigner, tokens: Mapping[str, Caller]) -> None:
        self._store = store
        self._signer = signer
        self._tokens = dict(tokens)

    def caller(self, certificate: Mapping[str, Any] | None, authorization: str) -> Caller:
        """Return who it is; raises Unauthenticated for wrong credentials."""
        if certificate:
            found = _of_certificate(certificate)
            if found is not None:
                return found
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise status.unauthorized()
        caller = self.of_token(token.strip())
        if caller is None:
            raise status.unauthorized()
        return caller

    def of_token(self, token: str, audiences: Iterable[str] = ()) -> Caller | None:
        """Return whose token it is, None when it is nobody's (any more)."""
        known = None
        for candidate, caller in self._tokens.items():
            if hmac.compare_digest(candidate.encode(), token.encode()):
                known = caller
        if known is not None:
            return known
        claims = self._signer.read(token, tuple(audiences))
        return account_of(claims, self._store) if claims is not None else None


def _of_certificate(certificate: Mapping[str, Any]) -> Caller | None:
    """Read `ssl.SSLSocket.getpeercert()`: the handshake has verified the chain."""
    fields: dict[str, list[str]] = {}
    for relative in certificate.get("subject", ()):
        for name, value in relative:
            fields.setdefault(name, []).append(value)
    names = fields.get("commonName")
    if not names:
        return None
    return Caller(name=names[0], groups=(*fields.get("organizationName", ()), AUTHENTICATED))


def allowed(caller: Caller, asked: Attributes) -> bool:
    """Whether the policy above lets the caller do it."""
    if caller.is_master:
        return True
    if not asked.resource:
        if asked.verb not in ("get", "head"):
            return False
        if asked.path in PUBLIC_PATHS:
            return True
        return AUTHENTICATED in caller.groups and any(
            asked.path == known or asked.path.startswith(f"{known}/") for known in _KNOWN_PATHS
        )
    return AUTHENTICATED in caller.groups and asked.verb == "create" and asked.resource in _SELF_REVIEWS


def refusal(caller: Caller, asked: Attributes) -> str:
    """Return the sentence of a 403, without its subject, as Kubernetes words it."""
    if not asked.resource:
        return f'User "{caller.name}" cannot {asked.verb} path "{asked.path}"'
    resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
    return f'User "{caller.name}" cannot {asked.verb} resource "{resource}" in API group "{asked.group}"{where}'


def forbid(caller: Caller, asked: Attributes) -> Exception:
    """Return the error for a request the policy does not allow."""
    why = refusal(caller, asked)
    if not asked.resource:
        message = f"forbidden: {why}"
        return PermissionDenied(message, status=status.status(403, "Forbidden", message))
    group = f".{asked.group}" if asked.group else ""
    subject = f"{asked.resource}{group}" + (f' "{asked.name}"' if asked.name else "")
    details = {"name": asked.name, "group": asked.group, "kind": asked.resource}
    message = f"{subject} is forbidden: {why}"
    return PermissionDenied(message, status=status.status(403, "Forbidden", message, details))
