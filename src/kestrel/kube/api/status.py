"""Status objects: how every refusal is said in Kubernetes' own words.

kubectl prints `message` as it is and scripts grep for it, so the sentences follow Kubernetes' shapes exactly
(`pods "x" not found`), unlike the house style of other doors. There is still one tree of errors: the functions here
return a kind of `kestrel.base.errors` that carries its finished Status in `context["status"]`, and `failure` turns any
error into a Status, also one that was raised far below and knows nothing of Kubernetes.

The codes, reasons and causes are those of the API conventions ("Response Status Kind").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kestrel.base.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KestrelError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from kestrel.kube.api.scheme import JSONObject, Resource

REQUIRED = "Required value"
INVALID = "Invalid value"
NOT_SUPPORTED = "Unsupported value"
DUPLICATE = "Duplicate value"
FORBIDDEN = "Forbidden"
NOT_FOUND = "Not found"
TOO_LONG = "Too long"
TOO_MANY = "Too many"
TYPE_INVALID = "Invalid type"

_CAUSES = {
    REQUIRED: "FieldValueRequired",
    INVALID: "FieldValueInvalid",
    NOT_SUPPORTED: "FieldValueNotSupported",
    DUPLICATE: "FieldValueDuplicate",
    FORBIDDEN: "FieldValueForbidden",
    NOT_FOUND: "FieldValueNotFound",
    TOO_LONG: "FieldValueTooLong",
    TOO_MANY: "FieldValueTooMany",
    TYPE_INVALID: "FieldValueTypeInvalid",
}
_WITHOUT_VALUE = {REQUIRED, FORBIDDEN, TOO_LONG}

STALE = "the object has been modified; please apply your changes to the latest version and try again"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field; prints as `spec.containers: Required value`."""

    kind: str
    field: str
    value: Any = None
    detail: str = ""

    @property
    def body(self) -> str:
        """The sentence without the field name, as a cause carries it."""
        text = self.kind if self.kind in _WITHOUT_VALUE else f"{self.kind}: {_printed(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def cause(self) -> JSONObject:
        """The entry for `details.causes`."""
        return {"reason": _CAUSES[self.kind], "message": self.body, "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def required(field: str, detail: str = "") -> FieldError:
    """The field must be given."""
    return FieldError(REQUIRED, field, None, detail)


def invalid(field: str, value: Any, detail: str) -> FieldError:
    """The value cannot be used."""
    return FieldError(INVALID, field, value, detail)


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    """The value is none of the known words."""
    words = ", ".join(json.dumps(word) for word in sorted(supported))
    return FieldError(NOT_SUPPORTED, field, value, f"supported values: {words}")


def duplicate(field: str, value: Any) -> FieldError:
    """The value is there twice."""
    return FieldError(DUPLICATE, field, value)


def forbidden_field(field: str, detail: str) -> FieldError:
    """The field may not be set (now)."""
    return FieldError(FORBIDDEN, field, None, detail)


def not_found_field(field: str, value: Any) -> FieldError:
    """The field names something that is not there."""
    return FieldError(NOT_FOUND, field, value)


def too_long(field: str, limit: int) -> FieldError:
    """The value is longer than `limit` bytes."""
    return FieldError(TOO_LONG, field, None, f"may not be more than {limit} bytes")


def _printed(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def success(*, details: JSONObject | None = None, message: str = "", code: int = 200) -> JSONObject:
    """The Status that says it worked."""
    found: JSONObject = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if message:
        found["message"] = message
    if details:
        found["details"] = details
    if code != 200:
        found["code"] = code
    return found


def status(code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> JSONObject:
    """A failure Status from its parts."""
    found: JSONObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
    }
    if details:
        found["details"] = {key: value for key, value in details.items() if value}
    found["code"] = code
    return found


_E = TypeVar("_E", bound=KestrelError)


def _error(cls: type[_E], code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> _E:
    return cls(message, status=status(code, reason, message, details))


def _named(resource: Resource, name: str, **more: Any) -> JSONObject:
    return {"name": name, "group": resource.group, "kind": resource.plural, **more}


def not_found(resource: Resource, name: str) -> NotFound:
    """`pods "x" not found` (404)."""
    message = f"{resource.group_resource} {json.dumps(name)} not found"
    return _error(NotFound, 404, "NotFound", message, _named(resource, name))


def already_exists(resource: Resource, name: str) -> AlreadyExists:
    """`pods "x" already exists` (409)."""
    message = f"{resource.group_resource} {json.dumps(name)} already exists"
    return _error(AlreadyExists, 409, "AlreadyExists", message, _named(resource, name))


def generate_name_conflict(resource: Resource, name: str) -> AlreadyExists:
    """No free name was found for a `generateName` (409, worth a retry)."""
    message = (
        f"{resource.group_resource} {json.dumps(name)} already exists, the server was not able to generate a "
        "unique name for the object"
    )
    return _error(AlreadyExists, 409, "AlreadyExists", message, _named(resource, name, retryAfterSeconds=1))


def conflict(resource: Resource, name: str, why: str = STALE) -> Conflict:
    """`Operation cannot be fulfilled on pods "x": ...` (409); the default cause is a stale resourceVersion."""
    message = f"Operation cannot be fulfilled on {resource.group_resource} {json.dumps(name)}: {why}"
    return _error(Conflict, 409, "Conflict", message, _named(resource, name))


def apply_conflict(causes: Sequence[JSONObject], message: str) -> Conflict:
    """A server-side apply met fields of other managers (409, one cause per field)."""
    return _error(Conflict, 409, "Conflict", message, {"causes": list(causes)})


def invalid_object(resource: Resource, name: str, errors: Sequence[FieldError]) -> InvalidArgument:
    """`Pod "x" is invalid: spec.containers: Required value` (422, one cause per field)."""
    sentences = list(dict.fromkeys(str(error) for error in errors))
    message = f"{resource.group_kind} {json.dumps(name)} is invalid"
    if len(sentences) == 1:
        message += f": {sentences[0]}"
    elif sentences:
        message += f": [{', '.join(sentences)}]"
    details = {"name": name, "group": resource.group, "kind": resource.kind, "causes": [e.cause() for e in errors]}
    return _error(InvalidArgument, 422, "Invalid", message, details)


def forbidden(resource: Resource, name: str, why: str) -> PermissionDenied:
    """`pods "x" is forbidden: ...` (403)."""
    subject = f"{resource.group_resource} {json.dumps(name)}" if name else resource.group_resource
    return _error(PermissionDenied, 403, "Forbidden", f"{subject} is forbidden: {why}", _named(resource, name))


def unauthorized(message: str = "Unauthorized") -> Unauthenticated:
    """The caller is not known (401)."""
    return _error(Unauthenticated, 401, "Unauthorized", message)


def bad_request(message: str) -> InvalidArgument:
    """The request cannot be understood (400)."""
    return _error(InvalidArgument, 400, "BadRequest", message)


def expired(
    message: str = "The resourceVersion for the provided watch is too old.", *, token: str = ""
) -> FailedPrecondition:
    """The resourceVersion or continue token is too old (410); `token` lets a list go on inconsistently."""
    body = status(410, "Expired", message)
    if token:
        body["metadata"] = {"continue": token}
    return FailedPrecondition(message, status=body)


def gone(message: str) -> FailedPrecondition:
    """What was asked for is no longer there (410)."""
    return _error(FailedPrecondition, 410, "Gone", message)


def method_not_allowed(resource: Resource, action: str) -> FailedPrecondition:
    """`update is not supported on resources of kind "bindings"` (405)."""
    message = f'{action} is not supported on resources of kind "{resource.group_resource}"'
    details = {"group": resource.group, "kind": resource.plural}
    return _error(FailedPrecondition, 405, "MethodNotAllowed", message, details)


def no_such_path() -> NotFound:
    """No resource is served at this path (404)."""
    return _error(NotFound, 404, "NotFound", "the server could not find the requested resource")


def not_acceptable(accepted: Iterable[str]) -> InvalidArgument:
    """None of the media types in Accept can be produced (406)."""
    message = f"only the following media types are accepted: {', '.join(accepted)}"
    return _error(InvalidArgument, 406, "NotAcceptable", message)


def unsupported_media_type(accepted: Iterable[str]) -> InvalidArgument:
    """The body's media type is not understood (415)."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return _error(InvalidArgument, 415, "UnsupportedMediaType", message)


def too_large(message: str) -> ResourceExhausted:
    """The body is larger than allowed (413)."""
    return _error(ResourceExhausted, 413, "RequestEntityTooLarge", f"Request entity too large: {message}")


def too_many_requests(message: str, retry_after: int = 1) -> ResourceExhausted:
    """Try again in `retry_after` seconds (429); an eviction a disruption budget blocks says so too."""
    return _error(ResourceExhausted, 429, "TooManyRequests", message, {"retryAfterSeconds": retry_after})


def unavailable(message: str) -> Unavailable:
    """The server, or the node behind it, cannot answer now (503)."""
    return _error(Unavailable, 503, "ServiceUnavailable", message)


def timed_out(message: str) -> TimedOut:
    """It took longer than was allowed (504)."""
    return _error(TimedOut, 504, "Timeout", f"Timeout: {message}")


def internal(message: str) -> Internal:
    """A bug of ours (500)."""
    sentence = f"Internal error occurred: {message}"
    return _error(Internal, 500, "InternalError", sentence, {"causes": [{"message": message}]})


KIND_CODES: dict[str, tuple[int, str]] = {
    "invalid-argument": (400, "BadRequest"),
    "not-found": (404, "NotFound"),
    "already-exists": (409, "AlreadyExists"),
    "conflict": (409, "Conflict"),
    "failed-precondition": (409, "Conflict"),
    "permission-denied": (403, "Forbidden"),
    "unauthenticated": (401, "Unauthorized"),
    "resource-exhausted": (429, "TooManyRequests"),
    "unavailable": (503, "ServiceUnavailable"),
    "timed-out": (504, "Timeout"),
    "data-loss": (500, "InternalError"),
    "unimplemented": (501, "NotImplemented"),
    "internal": (500, "InternalError"),
}
"""HTTP code and reason by error kind, for errors that carry no Status of their own."""


def failure(error: BaseException) -> JSONObject:
    """The Status for any error: its own when it carries one, else by the table of kinds.

    An exception that is no KestrelError is a bug of ours; its text is not shown to the client.
    """
    if not isinstance(error, KestrelError):
        return status(500, "InternalError", f"Internal error occurred: {type(error).__name__}")
    own = error.context.get("status")
    if isinstance(own, dict):
        return own
    code, reason = KIND_CODES[error.kind]
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return status(code, reason, message)
