"""What a refused request is told (distribution-spec, "Error Codes"): a status and a code for every kind of error."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from kestrel.base.errors import KestrelError

API_VERSION: Final = {"Docker-Distribution-API-Version": "registry/2.0"}
"""Not in the spec; docker and its relatives look for it."""

STATUS: Final = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "UNSUPPORTED": 405,
    "TOOMANYREQUESTS": 429,
}
"""The fourteen codes of the spec, each with the status it usually travels under."""

KIND: Final = {
    "invalid-argument": (400, "UNSUPPORTED"),
    "not-found": (404, "NAME_UNKNOWN"),
    "already-exists": (409, "DENIED"),
    "conflict": (409, "DENIED"),
    "failed-precondition": (412, "DENIED"),
    "permission-denied": (403, "DENIED"),
    "unauthenticated": (401, "UNAUTHORIZED"),
    "resource-exhausted": (507, "DENIED"),
    "unavailable": (503, "TOOMANYREQUESTS"),
    "timed-out": (408, "BLOB_UPLOAD_INVALID"),
    "data-loss": (400, "DIGEST_INVALID"),
    "unimplemented": (405, "UNSUPPORTED"),
    "internal": (500, "UNSUPPORTED"),
}
"""For errors that come from below with a kind but no code of the protocol."""


class Refusal(Exception):  # noqa: N818 - the door says no; nothing went wrong
    """An answer other than success, decided by the door itself."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: "int | None" = None,
        detail: Any = None,
        headers: "Mapping[str, str] | None" = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or STATUS[code]
        self.detail = detail
        self.headers = headers or {}

    @classmethod
    def of(cls, error: KestrelError, code: "str | None" = None) -> "Refusal":
        """Return what an error from below is to a client; `code` when the caller knows it better than the kind."""
        status, usual = KIND[error.kind]
        detail = {"hint": error.hint} if error.hint else None
        return cls(code or usual, error.message, status=STATUS[code] if code else status, detail=detail)


def response(refusal: Refusal) -> web.Response:
    """Return the answer with its JSON body."""
    entry: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.detail is not None:
        entry["detail"] = refusal.detail
    return web.Response(
        status=refusal.status,
        body=json.dumps({"errors": [entry]}).encode(),
        content_type="application/json",
        headers={**API_VERSION, **refusal.headers},
    )
