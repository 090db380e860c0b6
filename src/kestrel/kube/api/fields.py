"""Fields an object may have: unknown ones by path, and the pass that makes an object what its kind can hold.

`read` is what decoding into a typed structure does elsewhere: it takes away fields the kind does not have and nulls,
brings quantities into canonical form, and refuses a value of the wrong type with the sentence Go's decoder has.
`unknown` lists what `read` would take away, as kubectl's strict validation prints it: `spec.containers[0].imagee`.
"""

from __future__ import annotations

import base64
import string
from typing import Any

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import quantity, status
from kestrel.kube.api.resource import GroupVersionKind, JSONObject, Resource
from kestrel.kube.api.schemas import ANY, BOOLEAN, INTEGER, LIST, MAP, NUMBER, OBJECT, QUANTITY, STRING, Type, load

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    OBJECT: (dict,),
    MAP: (dict,),
    LIST: (list,),
    STRING: (str,),
    BOOLEAN: (bool,),
    INTEGER: (int,),
    NUMBER: (int, float),
}
_GO_TYPES = {STRING: "string", BOOLEAN: "bool", INTEGER: "int", NUMBER: "float64", MAP: "map[string]string"}
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=")
_JSON_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def unknown(target: Resource | GroupVersionKind, obj: JSONObject) -> list[str]:
    """Paths of the fields the kind does not have, in document order."""
    found: list[str] = []
    _unknown(load().of(target), obj, "", found)
    return found


def _unknown(schema: Type, value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            below = f"{path}.{key}" if path else key
            inner = schema.child(key)
            if inner is None:
                if schema.kind == OBJECT:
                    found.append(below)
            elif isinstance(child, dict | list) and inner.kind != ANY:
                _unknown(inner, child, below, found)
    elif isinstance(value, list) and schema.kind == LIST:
        for index, child in enumerate(value):
            _unknown(schema.item, child, f"{path}[{index}]", found)


def read(target: Resource | GroupVersionKind, obj: JSONObject) -> JSONObject:
    """Make the object what its kind can hold, in place; InvalidArgument (400) for a value of the wrong type."""
    schema = load().of(target)
    kind = target if isinstance(target, GroupVersionKind) else target.gvk
    try:
        _read(schema, obj, "")
    except _WrongTypeError as wrong:
        raise status.bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {wrong}'
        ) from None
    return obj


prune = read
"""Taking away unknown fields is part of reading."""


class _WrongTypeError(Exception):
    """A value does not fit its field; the text is Go's."""


def _wrong(schema: Type, value: Any, path: str) -> _WrongTypeError:
    name = schema.definition.rsplit(".", 1)[-1]
    if schema.kind == QUANTITY:
        return _WrongTypeError(f"quantities must match the regular expression '{quantity.PATTERN}'")
    wanted = _GO_TYPES.get(schema.kind) or (f"[]{_item_name(schema)}" if schema.kind == LIST else name)
    found = _JSON_NAMES.get(type(value), "value")
    return _WrongTypeError(f"json: cannot unmarshal {found} into Go struct field .{path} of type {wanted}")


def _item_name(schema: Type) -> str:
    return schema.item.definition.rsplit(".", 1)[-1] or _GO_TYPES.get(schema.item.kind, "object")


def _read(schema: Type, value: Any, path: str) -> Any:
    """The value as the kind holds it; containers are changed in place."""
    kind = schema.kind
    if kind == ANY:
        return value
    if kind == QUANTITY:
        return _read_quantity(schema, value, path)
    if schema.format == "int-or-string":
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _wrong(schema, value, path)
        return value
    if not _fits(kind, value):
        return _read_other(schema, value, path)
    if kind == OBJECT:
        _read_object(schema, value, path)
    elif kind == LIST:
        item = schema.item
        for index, child in enumerate(value):
            value[index] = _read(item, child, f"{path}[{index}]")
    elif kind == MAP:
        _read_map(schema, value, path)
    elif schema.format == "byte":
        _check_base64(value)
    return value


def _check_base64(text: str) -> None:
    """Refuse what is not base64; line breaks are skipped, as Go's decoder does."""
    plain = text.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(plain, validate=True)
    except ValueError:
        at = next((i for i, c in enumerate(plain) if c not in _BASE64), len(plain))
        raise _WrongTypeError(f"illegal base64 data at input byte {at}") from None


def _fits(kind: str, value: Any) -> bool:
    return isinstance(value, _PYTHON_TYPES[kind]) and (value.__class__ is not bool or kind == BOOLEAN)


def _read_other(schema: Type, value: Any, path: str) -> Any:
    """Whole floats are integers to JSON; everything else of the wrong type is refused."""
    if schema.kind == INTEGER and isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None and schema.kind in (OBJECT, MAP):
        return {}
    if value is None and schema.kind == STRING:
        return ""
    raise _wrong(schema, value, path)


def _read_quantity(schema: Type, value: Any, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(schema, value, path)
    try:
        return quantity.canonical(value)
    except InvalidArgument:
        raise _wrong(schema, value, path) from None


def _read_object(schema: Type, value: JSONObject, path: str) -> None:
    fields = schema.fields
    if not fields:
        return
    dropped = None
    for key, child in value.items():
        inner = fields.get(key)
        if inner is None or child is None:
            dropped = [key] if dropped is None else [*dropped, key]
        elif child.__class__ is not str or inner.kind is not STRING or inner.format == "byte":
            value[key] = _read(inner, child, f"{path}.{key}" if path else key)
    for key in dropped or ():
        del value[key]


def _read_map(schema: Type, value: JSONObject, path: str) -> None:
    item = schema.item
    if item.kind == ANY:
        return
    plain = item.kind is STRING and item.format != "byte"
    for key, child in value.items():
        if child.__class__ is not str or not plain:
            value[key] = _read(item, child, f"{path}.{key}" if path else key)
