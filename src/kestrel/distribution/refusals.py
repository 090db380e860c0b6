"""An answer that is not a success, as an error with cause and remedy (distribution-spec, "Error Codes").

The HTTP status decides the kind: the texts in the bodies differ between registries and cannot be relied upon.
They are shown, shortened, because they often say more.
"""

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from kestrel.base.clock import Clock
from kestrel.base.errors import (
    FailedPrecondition,
    InvalidArgument,
    KestrelError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

_SHOWN = 300


def codes(body: bytes) -> list[str]:
    """Return the error codes of a spec-shaped body, an empty list for any other."""
    return [code for code, _ in _entries(body)]


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, domain: str, what: str) -> KestrelError:
    """Return the error for a final answer with this status. `what` is the thing asked for, such as `image a/b:c`."""
    error = _refusal(status, headers, body, domain, what)
    error.context["status"] = status
    return error


def _refusal(status: int, headers: Mapping[str, str], body: bytes, domain: str, what: str) -> KestrelError:
    said = _said(headers, body)
    tail = f": {said}" if said else ""
    match status:
        case 401:
            return Unauthenticated(
                f"{domain} wants to know who is asking for {what}{tail}",
                hint=f"the name may be wrong, or it is private: `kestrel login {domain}` stores credentials, "
                "in a Pod name an imagePullSecret",
            )
        case 403:
            return PermissionDenied(f"{domain} denies access to {what}{tail}", hint="use credentials that may do this")
        case 404:
            return NotFound(f"{domain} has no {what}{tail}", hint="check the name, the tag and the registry")
        case 405:
            return Unimplemented(f"{domain} does not support this for {what}{tail}")
        case 413:
            return ResourceExhausted(f"{domain} takes nothing as large as {what}{tail}")
        case 429:
            wait = headers.get("Retry-After", "")
            return ResourceExhausted(
                f"{domain} refuses {what}: too many requests from here{tail}",
                hint=f"it asks to wait {wait} s; " * wait.isdigit() + "logging in often raises the limit",
            )
        case 507:
            return ResourceExhausted(f"{domain} has no space left for {what}{tail}")
        case _ if status >= 500:
            return Unavailable(f"{domain} failed with status {status} at {what}{tail}", hint="try again later")
        case _ if 300 <= status < 400:
            return Unavailable(f"{domain} sent a redirect for {what} that cannot be followed{tail}")
        case 400 | 416:
            return InvalidArgument(f"{domain} refused {what}{tail}")
        case _:
            return FailedPrecondition(f"{domain} answered {status} for {what}{tail}")


def not_a_registry(domain: str, headers: Mapping[str, str], status: int) -> KestrelError:
    """Return the error for a server that answers, but not as a registry does."""
    kind = headers.get("Content-Type", "").partition(";")[0]
    shape = f"{status}" + (f" with {kind}" if kind else "")
    return FailedPrecondition(
        f"{domain} is not a container registry: it answered {shape} at /v2/", hint="check the host and the port"
    )


def retry_after(headers: Mapping[str, str], clock: Clock) -> "float | None":
    """Return the seconds a server asks to wait (RFC 9110 section 10.2.3: a number, or a date), or None."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    if not value:
        return None
    try:
        return max(0.0, (parsedate_to_datetime(value) - clock.now()).total_seconds())
    except (ValueError, TypeError):
        return None


def _said(headers: Mapping[str, str], body: bytes) -> str:
    parts = [message or code.replace("_", " ").lower() for code, message in _entries(body)]
    if not parts and headers.get("Content-Type", "").startswith("text/plain"):
        parts = [body[:_SHOWN].decode(errors="replace")]
    text = " ".join("; ".join(dict.fromkeys(parts)).split())
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return printable if len(printable) <= _SHOWN else printable[:_SHOWN] + "..."


def _entries(body: bytes) -> list[tuple[str, str]]:
    try:
        errors = json.loads(body)["errors"]
        return [(str(entry.get("code", "")), str(entry.get("message") or "")) for entry in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
