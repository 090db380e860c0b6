"""The small checks that every kind's validation is made of; each appends what is wrong to a list of field errors.

Paths are dotted texts as messages print them (`spec.containers[0].name`). Values have been through `fields.read`, so
their types are right; what may be missing is `None`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kestrel.kube.api import names, quantity, status
from kestrel.kube.api.names import Checker
from kestrel.kube.api.status import FieldError

Found = list[FieldError]

AT_LEAST_ZERO = "must be greater than or equal to 0"
MAX_ID = 2**31 - 1
ONE_AT_A_TIME = "may not have more than one field specified at a time"


def syntax(found: Found, path: str, value: str, checker: Checker) -> None:
    """The value follows a syntax of `names`."""
    for sentence in checker(value):
        found.append(status.invalid(path, value, sentence))


def named(found: Found, path: str, value: str | None, checker: Checker) -> None:
    """The value is there and follows a syntax."""
    if not value:
        found.append(status.required(path))
    else:
        syntax(found, path, value, checker)


def one_of(found: Found, path: str, value: Any, words: Iterable[str], *, needed: bool = False) -> None:
    """The value is one of some words, or absent unless it is needed."""
    if value is None or value == "":
        if needed:
            found.append(status.required(path))
    elif value not in words:
        found.append(status.not_supported(path, value, words))


def at_least(found: Found, path: str, value: int | None, least: int) -> None:
    """The number is not below a bound; absent is fine."""
    if value is not None and value < least:
        sentence = AT_LEAST_ZERO if least == 0 else f"must be greater than or equal to {least}"
        found.append(status.invalid(path, value, sentence))


def between(found: Found, path: str, value: int | None, low: int, high: int) -> None:
    """The number is in a range, both ends included; absent is fine."""
    if value is not None and not low <= value <= high:
        found.append(status.invalid(path, value, f"must be between {low} and {high}, inclusive"))


def port(found: Found, path: str, value: int | None) -> None:
    """A port number."""
    if value is None or not 1 <= value <= 65535:
        found.append(status.invalid(path, value or 0, names.PORT_RANGE))


def port_or_name(found: Found, path: str, value: int | str | None) -> None:
    """A port by number or by name."""
    if isinstance(value, str):
        syntax(found, path, value, names.port_name)
    else:
        port(found, path, value)


def relative_path(found: Found, path: str, value: str) -> None:
    """A path below a directory, that stays there."""
    if value.startswith("/"):
        found.append(status.invalid(path, value, "must be a relative path"))
    backsteps(found, path, value)


def backsteps(found: Found, path: str, value: str) -> None:
    """A path without `..`."""
    if ".." in value.split("/"):
        found.append(status.invalid(path, value, "must not contain '..'"))


def file_mode(found: Found, path: str, value: int | None) -> None:
    """Permission bits."""
    if value is not None and not 0 <= value <= 0o777:
        found.append(status.invalid(path, value, "must be a number between 0 and 0777 (octal), both inclusive"))


def not_negative(found: Found, path: str, value: Any) -> None:
    """A quantity that is not below zero."""
    if quantity.parse(value) < 0:
        found.append(status.invalid(path, value, AT_LEAST_ZERO))


def labels(found: Found, path: str, values: Mapping[str, str] | None) -> None:
    """Keys and values of labels."""
    for key, value in (values or {}).items():
        syntax(found, path, key, names.qualified_name)
        syntax(found, path, value, names.label_value)


def label_selector(found: Found, path: str, selector: Mapping[str, Any] | None) -> None:
    """A LabelSelector object."""
    if selector is None:
        return
    labels(found, f"{path}.matchLabels", selector.get("matchLabels"))
    for index, entry in enumerate(selector.get("matchExpressions") or ()):
        below = f"{path}.matchExpressions[{index}]"
        operator, values = entry.get("operator"), entry.get("values")
        if operator in ("In", "NotIn") and not values:
            found.append(status.required(f"{below}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            sentence = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            found.append(status.forbidden_field(f"{below}.values", sentence))
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            found.append(status.invalid(f"{below}.operator", operator or "", "not a valid selector operator"))
        syntax(found, f"{below}.key", entry.get("key") or "", names.qualified_name)


def only_one(found: Found, path: str, source: Mapping[str, Any], kinds: Iterable[str], what: str) -> str | None:
    """Exactly one of several members is set; returns its name."""
    given = [kind for kind in kinds if source.get(kind) is not None]
    if not given:
        found.append(status.required(path, f"must specify a {what} type"))
        return None
    for extra in given[1:]:
        found.append(status.forbidden_field(f"{path}.{extra}", f"may not specify more than 1 {what} type"))
    return given[0]


def unchanged(found: Found, path: str, new: Any, old: Any) -> None:
    """The field has the value it had."""
    if new != old:
        found.append(status.invalid(path, new, names.IMMUTABLE))
