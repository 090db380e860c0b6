"""Service account tokens: JSON Web Tokens that name an account, for an audience and a time.

Signed with ES256 by a key of this node that lies in one file (0600). A token is good while its signature, audience
and time are, and the account, and the pod it was made for if any, still exist with the same uid. Nothing is stored, so
a restart forgets no token and deleting the account revokes all of its tokens.

Claims are those of Kubernetes (`kubernetes.io` with namespace, serviceaccount and pod), so that clients that look
into a token find what they know.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from kestrel.base.clock import Clock, SystemClock
from kestrel.base.files import private_directory, replace
from kestrel.kube.api import meta
from kestrel.kube.api.scheme import JSONObject
from kestrel.kube.apiserver.call import AUTHENTICATED, SERVICE_ACCOUNT_PREFIX, SERVICE_ACCOUNTS, Caller
from kestrel.kube.store import Key, ObjectStore

ISSUER = "https://kubernetes.default.svc.cluster.local"
SHORTEST, LONGEST = 600, 1 << 32
"""Seconds a TokenRequest may ask for."""
_LONGEST_LIFE = timedelta(days=365)
_SKEW = 30


class TokenSigner:
    """Makes and reads tokens with one key."""

    def __init__(self, key: ECKey, *, issuer: str = ISSUER, audiences: Sequence[str] = (), clock: Clock | None = None):
        self._key = key
        self._identity = str(key.thumbprint())
        self.issuer = issuer
        self.audiences = tuple(audiences) or (issuer,)
        """The audiences of the API server itself: what an unbound request gets, and what we take."""
        self._clock = clock or SystemClock()

    @classmethod
    def load_or_create(cls, path: Path, *, clock: Clock | None = None) -> TokenSigner:
        """Open the key in `path`, or make one there that only its owner can read."""
        if not path.exists():
            private_directory(path.parent)
            made = ECKey.generate_key("P-256", private=True)
            replace(path, json.dumps(made.as_dict(private=True)).encode(), mode=0o600)
        return cls(ECKey.import_key(json.loads(path.read_bytes())), clock=clock)

    def jwks(self) -> JSONObject:
        """Return the public key set that others verify tokens with."""
        public = self._key.as_dict(private=False) | {"kid": self._identity, "alg": "ES256", "use": "sig"}
        return {"keys": [public]}

    def sign(
        self, account: JSONObject, audiences: Sequence[str], seconds: int, pod: JSONObject | None = None
    ) -> tuple[str, str]:
        """Return a token for an account and the time it ends, as RFC 3339."""
        metadata = account["metadata"]
        now = self._clock.now()
        end = now + min(timedelta(seconds=seconds), _LONGEST_LIFE)
        own: JSONObject = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        if pod is not None:
            own["pod"] = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        claims = {
            "iss": self.issuer,
            "sub": f"{SERVICE_ACCOUNT_PREFIX}{metadata['namespace']}:{metadata['name']}",
            "aud": list(audiences or self.audiences),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int(end.timestamp()),
            "jti": str(uuid.uuid4()),
            "kubernetes.io": own,
        }
        token = jwt.encode({"alg": "ES256", "kid": self._identity}, claims, self._key)
        return token, meta.time(end)

    def read(self, token: str, audiences: Sequence[str] = ()) -> JSONObject | None:
        """Return the claims of a token of ours that is good now for one of the audiences, else None."""
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, algorithms=["ES256"]).claims
        except (JoseError, ValueError, KeyError, TypeError):
            return None
        now = self._clock.now().timestamp()
        if claims.get("iss") != self.issuer or not _good_at(claims, now):
            return None
        stated = claims.get("aud")
        given = stated if isinstance(stated, list) else [stated]
        return claims if set(given) & set(audiences or self.audiences) else None


def _good_at(claims: JSONObject, now: float) -> bool:
    end, begin = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(end, int | float) or not isinstance(begin, int | float):
        return False
    return begin - _SKEW <= now < end


def account_of(claims: JSONObject, store: ObjectStore) -> Caller | None:
    """Return the service account a token names, None when it, or the pod it was made for, is no more."""
    own = claims.get("kubernetes.io") or {}
    namespace, account, pod = own.get("namespace", ""), own.get("serviceaccount") or {}, own.get("pod")
    if not _alive(store, "serviceaccounts", namespace, account):
        return None
    extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti')}",)}
    if pod is not None:
        if not _alive(store, "pods", namespace, pod):
            return None
        extra["authentication.kubernetes.io/pod-name"] = (str(pod["name"]),)
        extra["authentication.kubernetes.io/pod-uid"] = (str(pod["uid"]),)
    return Caller(
        name=f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{account['name']}",
        uid=str(account["uid"]),
        groups=(SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED),
        extra=extra,
    )


def _alive(store: ObjectStore, resource: str, namespace: str, reference: JSONObject) -> bool:
    record = store.get(Key(resource, namespace, str(reference.get("name", ""))))
    return record is not None and record.object["metadata"]["uid"] == reference.get("uid")
