"""Kubernetes' protobuf, table-driven: bodies that clients send instead of JSON.

kubectl from 1.32 on, and every Go client built on client-go 0.32 or later, creates built-in kinds with
`application/vnd.kubernetes.protobuf` and does not fall back to JSON. A body is the magic `k8s\\0` and a
`runtime.Unknown{typeMeta, raw}`; `raw` is the message of the kind (api-concepts.md, "Kubernetes Protobuf encoding").

One table (`data/protobuf.json`, made by `tools/generate_protobuf.py`) gives number, JSON name and wire type of each
field; decoding walks the bytes by that table and yields the same plain object JSON would have given. Seven messages
have a JSON form of their own (Time, MicroTime, Quantity, IntOrString, FieldsV1, RawExtension, and lists that a map
needed a name for). A field that Go holds by value is always on the wire; the table marks those whose zero is left out
of JSON, so that a zero somebody meant (`replicas: 0`) survives and the others go.

The bytes are a stranger's: every length is checked against its message, nesting is bounded, text must be UTF-8, and
whatever is wrong is an InvalidArgument. Unknown fields are skipped, as protobuf wants it.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import json
import struct
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any, Final

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api.meta import parse_time
from kestrel.kube.api.resource import GroupVersionKind, JSONObject, Resource, split_api_version
from kestrel.kube.api.wire import delimited, varint

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"
MAX_DEPTH: Final = 100
"""Deepest nesting of messages; protobuf's own libraries stop at 100 too."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LIST_MESSAGES = frozenset(
    ("authentication.v1.ExtraValue", "authorization.v1.ExtraValue", "certificates.v1.ExtraValue", "meta.v1.Verbs")
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Field:
    """One row of the table."""

    __slots__ = ("drop", "letter", "message", "mode", "name", "number")

    def __init__(self, text: str) -> None:
        number, self.name, kind = text.split(":")
        self.number = int(number)
        self.drop = kind.endswith("-")
        kind = kind.removesuffix("-")
        self.mode = kind[0] if kind[0] in "*{" else ""
        kind = kind.removeprefix(self.mode)
        self.letter, self.message = kind[0], kind[1:]


class _Message:
    """The fields of one message by number and by JSON name."""

    __slots__ = ("by_number", "name")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.by_number = {field.number: field for field in map(_Field, text.split())}


class _Table:
    """All messages; each is parsed when first met."""

    def __init__(self, data: dict[str, str]) -> None:
        self._data = data
        self._messages: dict[str, _Message] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def __getitem__(self, name: str) -> _Message:
        found = self._messages.get(name)
        if found is None:
            found = self._messages[name] = _Message(name, self._data[name])
        return found


@cache
def _table() -> _Table:
    return _Table(json.loads((resources.files("kestrel.kube.api") / "data" / "protobuf.json").read_bytes()))


def message_name(group: str, version: str, kind: str) -> str | None:
    """The message of a kind, or None when the table has none; `rbac.authorization.k8s.io` is package `rbac`."""
    package = group.split(".", 1)[0] if group else "core"
    for name in (f"{package}.{version}.{kind}", f"meta.v1.{kind}"):
        if name in _table():
            return name
    return None


def knows(api_version: str, kind: str) -> bool:
    """Whether objects of this kind can be decoded and encoded."""
    return message_name(*split_api_version(api_version), kind) is not None


def unwrap(body: bytes) -> tuple[str, str, bytes]:
    """`apiVersion`, `kind` and the kind's own bytes, out of the envelope."""
    if not body.startswith(MAGIC):
        raise InvalidArgument("the body is not Kubernetes protobuf: it does not begin with the four magic bytes")
    envelope: JSONObject = {}
    raw = b""
    for number, wire, value in _records(memoryview(body)[len(MAGIC) :]):
        if wire != _LENGTH or number not in (1, 2, 3):
            continue
        if number == 1:
            _decode_into(envelope, "runtime.TypeMeta", value, 1)
        elif number == 2:
            raw = bytes(value)
        elif value:
            raise InvalidArgument(f"the content encoding {_text(value)!r} of the body is not known")
    return str(envelope.get("apiVersion", "")), str(envelope.get("kind", "")), raw


def decode(target: Resource | GroupVersionKind, raw: bytes) -> JSONObject:
    """The object in the kind's own bytes, as `unwrap` gives them, with apiVersion and kind set."""
    kind = target if isinstance(target, GroupVersionKind) else target.gvk
    name = message_name(kind.group, kind.version, kind.kind)
    if name is None:
        raise InvalidArgument(f"no protobuf form of {kind.api_version} {kind.kind} is known", hint="send JSON")
    found: JSONObject = {"kind": kind.kind, "apiVersion": kind.api_version}
    return _decode_into(found, name, memoryview(raw), 1)


def decode_body(body: bytes, expected: GroupVersionKind | None = None) -> JSONObject:
    """The object in a whole body; `expected` is its kind when the envelope names none."""
    api_version, kind, raw = unwrap(body)
    if not kind:
        if expected is None:
            raise InvalidArgument("the body does not say which kind it is")
        return decode(expected, raw)
    return decode(GroupVersionKind(*split_api_version(api_version), kind), raw)


# -- reading ----------------------------------------------------------------------------------------------------------


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned varint of at most 64 bits, and the offset behind it."""
    value = shift = 0
    for offset in range(at, min(at + 10, len(data))):
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, offset + 1
        shift += 7
    raise InvalidArgument("protobuf: a number is cut off or longer than 64 bits")


def _records(data: memoryview) -> list[tuple[int, int, Any]]:
    """Field number, wire type and value of every record: an int for numbers, a view for the rest."""
    found: list[tuple[int, int, Any]] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise InvalidArgument("protobuf: field number 0")
        if wire == _VARINT:
            value, at = _varint(data, at)
            found.append((number, wire, value))
            continue
        if wire == _LENGTH:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise InvalidArgument(f"protobuf: wire type {wire} is not used here")
        if size > end - at:
            raise InvalidArgument("protobuf: a field is longer than the message around it")
        found.append((number, wire, data[at : at + size]))
        at += size
    return found


def _decode_into(found: JSONObject, name: str, data: memoryview, depth: int) -> JSONObject:
    """Read one message into an object; a repeated singular message is merged, as protobuf defines it."""
    if depth > MAX_DEPTH:
        raise InvalidArgument(f"protobuf: messages are nested deeper than {MAX_DEPTH}")
    fields = _table()[name].by_number
    for number, wire, value in _records(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.mode == "{":
            _decode_entry(found.setdefault(field.name, {}), field, _message(value, wire, field), depth)
        elif field.mode == "*":
            _decode_items(found.setdefault(field.name, []), field, wire, value, depth)
        elif field.letter == "@":
            _decode_single(found, field, _message(value, wire, field), depth)
        else:
            _put_scalar(found, field, wire, value)
    return found


def _put_scalar(found: JSONObject, field: _Field, wire: int, value: Any) -> None:
    scalar = _scalar(field, wire, value)
    if scalar or not field.drop:
        found[field.name] = scalar
    else:
        found.pop(field.name, None)


def _decode_single(found: JSONObject, field: _Field, data: memoryview, depth: int) -> None:
    if not field.name:
        _decode_into(found, field.message, data, depth + 1)
        return
    if field.message in _SPECIAL or field.message in _LIST_MESSAGES:
        value = _value(field, _LENGTH, data, depth)
        if value is not None:
            found[field.name] = value
        return
    _decode_into(found.setdefault(field.name, {}), field.message, data, depth + 1)


def _decode_items(found: list[Any], field: _Field, wire: int, value: Any, depth: int) -> None:
    packed = field.letter in "ibd" and wire == _LENGTH
    if not packed:
        found.append(_value(field, wire, value, depth))
        return
    if field.letter == "d":
        raise InvalidArgument("protobuf: packed doubles are not used here")
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_scalar(field, _VARINT, number))


def _decode_entry(found: JSONObject, field: _Field, data: memoryview, depth: int) -> None:
    """One entry of a map: a message of key 1 and value 2, either of which may be absent."""
    key, value, wire = "", None, _LENGTH
    for number, kind, content in _records(data):
        if number == 1:
            key = _text(_message(content, kind, field))
        elif number == 2:
            value, wire = content, kind
    empty: Any = 0 if field.letter in "ib" else memoryview(b"")
    if value is None:
        value, wire = empty, _VARINT if field.letter in "ib" else _LENGTH
    found[key] = _value(field, wire, value, depth)


def _message(value: Any, wire: int, field: _Field) -> memoryview:
    if wire != _LENGTH or not isinstance(value, memoryview):
        raise InvalidArgument(f"protobuf: field {field.name or field.number} has the wrong wire type")
    return value


def _value(field: _Field, wire: int, value: Any, depth: int) -> Any:
    """One value of a list, a map, or a message with a form of its own."""
    if field.letter != "@":
        return _scalar(field, wire, value)
    data = _message(value, wire, field)
    special = _SPECIAL.get(field.message)
    if special:
        return special(_plain(field.message, data))
    inner = _decode_into({}, field.message, data, depth + 1)
    return inner.get("items", []) if field.message in _LIST_MESSAGES else inner


def _scalar(field: _Field, wire: int, value: Any) -> Any:
    if field.letter in "ib":
        if wire != _VARINT:
            raise InvalidArgument(f"protobuf: field {field.name or field.number} has the wrong wire type")
        if field.letter == "b":
            return bool(value)
        return value - (1 << 64) if value >> 63 else value
    if field.letter == "d":
        if wire != _FIXED64:
            raise InvalidArgument(f"protobuf: field {field.name or field.number} has the wrong wire type")
        return struct.unpack("<d", value)[0]
    data = _message(value, wire, field)
    return _text(data) if field.letter == "s" else base64.b64encode(data).decode()


def _text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument("protobuf: a text is not UTF-8") from error


# -- messages with a JSON form of their own ---------------------------------------------------------------------------


def _plain(name: str, data: memoryview) -> dict[int, Any]:
    """Values of a small message by number; bytes stay bytes."""
    fields = _table()[name].by_number
    found: dict[int, Any] = {}
    for number, wire, value in _records(data):
        field = fields.get(number)
        if field is not None:
            found[number] = bytes(_message(value, wire, field)) if field.letter == "y" else _scalar(field, wire, value)
    return found


def _moment(values: dict[int, Any]) -> datetime | None:
    seconds, nanos = values.get(1, 0), values.get(2, 0)
    if not seconds and not nanos:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError as error:
        raise InvalidArgument(f"protobuf: {seconds} seconds is no time") from error


def _time(values: dict[int, Any]) -> str | None:
    moment = _moment(values)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}".rjust(20, "0") if moment else None


def _micro_time(values: dict[int, Any]) -> str | None:
    moment = _moment(values)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}".rjust(27, "0") if moment else None


def _quantity(values: dict[int, Any]) -> str:
    return str(values.get(1, "") or "0")


def _int_or_string(values: dict[int, Any]) -> int | str:
    return str(values.get(3, "")) if values.get(1) else int(values.get(2, 0))


def _raw_json(values: dict[int, Any]) -> Any:
    try:
        return json.loads(values.get(1) or b"null")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("protobuf: an embedded object is not JSON") from error


_SPECIAL = {
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "resource.Quantity": _quantity,
    "intstr.IntOrString": _int_or_string,
    "meta.v1.FieldsV1": _raw_json,
    "runtime.RawExtension": _raw_json,
}


# -- writing ----------------------------------------------------------------------------------------------------------


def encode(obj: JSONObject) -> bytes:
    """A body for this object, envelope included; fields the table does not know are left out."""
    api_version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
    name = message_name(*split_api_version(api_version), kind)
    if name is None:
        raise InvalidArgument(f"no protobuf form of {api_version} {kind} is known", hint="use JSON")
    meta = delimited(1, api_version.encode()) + delimited(2, kind.encode())
    return MAGIC + delimited(1, meta) + delimited(2, _encode(name, obj))


def _encode(name: str, obj: JSONObject) -> bytes:
    parts = []
    for field in _table()[name].by_number.values():
        if not field.name:
            inner = _encode(field.message, obj)
            parts.append(delimited(field.number, inner) if inner else b"")
            continue
        value = obj.get(field.name)
        if value is not None:
            parts.append(_encode_field(field, value))
    return b"".join(parts)


def _encode_field(field: _Field, value: Any) -> bytes:
    if field.mode == "*":
        return b"".join(_encode_value(field, field.number, item) for item in _of(list, value, field))
    if field.mode != "{":
        return _encode_value(field, field.number, value)
    entries = (
        delimited(1, str(key).encode()) + _encode_value(field, 2, item) for key, item in _of(dict, value, field).items()
    )
    return b"".join(delimited(field.number, entry) for entry in entries)


def _of(kind: type, value: Any, field: _Field) -> Any:
    if not isinstance(value, kind):
        raise InvalidArgument(f"{field.name} is {type(value).__name__}, wanted {kind.__name__}")
    return value


def _encode_value(field: _Field, number: int, value: Any) -> bytes:
    match field.letter:
        case "i" | "b":
            return varint(number << 3) + varint(int(_of(int, value, field)) & 0xFFFFFFFFFFFFFFFF)
        case "s":
            return delimited(number, _of(str, value, field).encode())
        case "y":
            return delimited(number, _bytes(field, value))
        case "d":
            return varint(number << 3 | _FIXED64) + struct.pack("<d", value)
    if field.message in _SPECIAL:
        return delimited(number, _encode_special(field.message, value))
    if field.message in _LIST_MESSAGES:
        value = {"items": value}
    return delimited(number, _encode(field.message, _of(dict, value, field)))


def _bytes(field: _Field, value: Any) -> bytes:
    try:
        return base64.b64decode(_of(str, value, field), validate=True)
    except binascii.Error as error:
        raise InvalidArgument(f"{field.name} is not base64") from error


def _encode_special(name: str, value: Any) -> bytes:
    if value is None:
        return b""
    match name:
        case "meta.v1.Time" | "meta.v1.MicroTime":
            moment = parse_time(value)
            if moment is None:
                raise InvalidArgument(f"{value!r} is no time")
            seconds = calendar.timegm(moment.utctimetuple())
            return varint(8) + varint(seconds & 0xFFFFFFFFFFFFFFFF) + varint(16) + varint(moment.microsecond * 1000)
        case "resource.Quantity":
            return delimited(1, str(value).encode())
        case "intstr.IntOrString":
            if isinstance(value, str):
                return varint(8) + varint(1) + delimited(3, value.encode())
            return varint(8) + varint(0) + varint(16) + varint(int(value) & 0xFFFFFFFFFFFFFFFF)
    return delimited(1, json.dumps(value, separators=(",", ":")).encode())
