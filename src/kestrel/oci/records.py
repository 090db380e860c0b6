"""How the JSON documents of the image spec become frozen values, and bytes again, losing nothing.

`msgspec` drops fields it does not know. Images pass through us on the way to others (a layer annotated by a lazy
puller, a config field of a later spec), so each `Record` keeps what it did not understand in `extra` and writes it
back. Reading names the exact field in its complaint: `layers[2].digest: invalid digest ...`.
"""

from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.oci.digest import Digest

R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A JSON object of known fields and, in `extra`, the unknown ones as they came."""

    extra: dict[str, Any] = {}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: known fields in the order of the class, then the unknown by name."""
        written: dict[str, Any] = {}
        for name, key, _, default in _fields(type(self)):
            value = getattr(self, name)
            if default is not msgspec.NODEFAULT and value == default:
                continue
            written[key] = _write(value)
        for key in sorted(self.extra):
            written.setdefault(key, self.extra[key])
        return written

    def encode(self) -> bytes:
        """Return compact JSON, the same bytes for the same value every time."""
        return msgspec.json.encode(self.to_json())


def from_json(cls: type[R], raw: Any, where: str = "") -> R:
    """Read a JSON object as a record; raises InvalidArgument that names the field."""
    if not isinstance(raw, dict):
        raise InvalidArgument(f"{where or 'document'}: expected an object, got {_kind(raw)}")
    known = {key: (name, hint) for name, key, hint, _ in _fields(cls)}
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            extra[key] = value
        elif value is not None:  # Go writes null for an empty list or map
            name, hint = known[key]
            values[name] = _read(hint, value, f"{where}.{key}" if where else key)
    missing = [key for name, key, _, default in _fields(cls) if default is msgspec.NODEFAULT and name not in values]
    if missing:
        raise InvalidArgument(f"{where + ': ' if where else ''}required field {missing[0]!r} is missing")
    return cls(extra=extra, **values)


def parse_json(data: bytes, *, what: str, limit: int) -> Any:
    """Decode JSON of a stranger: at most `limit` bytes, real JSON, not nested without end."""
    if len(data) > limit:
        raise InvalidArgument(f"{what} has {len(data)} bytes, more than the {limit} allowed")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidArgument(f"{what} is nested too deeply") from error


@lru_cache(maxsize=64)
def _fields(cls: type[Record]) -> tuple[tuple[str, str, Any, Any], ...]:
    """List (attribute, JSON key, type, default) of a record's known fields."""
    found = []
    for field in msgspec.structs.fields(cls):
        if field.name != "extra":
            default = field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            found.append((field.name, field.encode_name, field.type, default))
    return tuple(found)


def _read(hint: Any, value: Any, where: str) -> Any:
    hint = _without_none(hint)
    if isinstance(hint, type) and issubclass(hint, Record):
        return from_json(hint, value, where)
    if get_origin(hint) is tuple and isinstance(value, list):
        item = get_args(hint)[0]
        return tuple(_read(item, each, f"{where}[{number}]") for number, each in enumerate(value))
    try:
        return msgspec.convert(value, hint, strict=True, dec_hook=_decode_digest)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{where}: {_sentence(error)}") from error


def _without_none(hint: Any) -> Any:
    if get_origin(hint) is Union or type(hint).__name__ == "UnionType":
        rest = [each for each in get_args(hint) if each is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint


def _decode_digest(kind: type, value: object) -> object:
    if kind is Digest and isinstance(value, str):
        try:
            return Digest.parse(value)
        except KestrelError as error:
            raise ValueError(error.message) from error
    raise ValueError(f"expected a string, got {_kind(value)}")


def _write(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        return [_write(each) for each in value]
    if isinstance(value, Digest):
        return str(value)
    return value


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _sentence(error: msgspec.ValidationError) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]
