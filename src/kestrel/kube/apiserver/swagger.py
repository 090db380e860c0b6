"""The Swagger 2.0 document as protobuf, which kubectl up to 1.28 insists on before it applies anything.

The messages are those of gnostic's `OpenAPIv2.proto`. Only the definitions are encoded: that is all these clients read
of it (merge keys and patch strategies for `apply`, texts for `explain --output=plaintext-openapiv2`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

ASKED_FOR = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""How clients ask for it in Accept."""
MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""How it is answered: Go's parser of media types does not take the `@`."""

_SWAGGER, _INFO, _DEFINITIONS = 1, 2, 9
_TITLE, _VERSION = 1, 2
_REF, _FORMAT, _DESCRIPTION, _REQUIRED, _ADDITIONAL, _TYPE, _ITEMS, _PROPERTIES = 1, 2, 4, 19, 21, 22, 23, 25
_EXTENSION, _NAME, _VALUE, _YAML = 31, 1, 2, 2


def encode(document: bytes) -> bytes:
    """Return the document (JSON) as an `openapi.v2.Document`."""
    found: dict[str, Any] = json.loads(document)
    info = _text(_TITLE, found["info"]["title"]) + _text(_VERSION, found["info"]["version"])
    return _text(_SWAGGER, "2.0") + _message(_INFO, info) + _message(_DEFINITIONS, _named(found["definitions"]))


def _named(schemas: Mapping[str, Any]) -> bytes:
    """Return `repeated NamedSchema additional_properties = 1`."""
    return b"".join(
        _message(1, _text(_NAME, name) + _message(_VALUE, _schema(schema))) for name, schema in schemas.items()
    )


def _schema(schema: Mapping[str, Any]) -> bytes:
    parts = [
        _text(number, schema[name])
        for name, number in (("$ref", _REF), ("format", _FORMAT), ("description", _DESCRIPTION))
        if schema.get(name)
    ]
    parts += [_text(_REQUIRED, name) for name in schema.get("required") or ()]
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        parts.append(_message(_ADDITIONAL, _message(1, _schema(additional))))
    kind = schema.get("type")
    if kind:
        parts.append(_message(_TYPE, _texts(1, [kind] if isinstance(kind, str) else kind)))
    if isinstance(schema.get("items"), dict):
        parts.append(_message(_ITEMS, _message(1, _schema(schema["items"]))))
    if schema.get("properties"):
        parts.append(_message(_PROPERTIES, _named(schema["properties"])))
    for name, value in schema.items():
        if name.startswith("x-"):
            stated = _text(_YAML, json.dumps(value))  # JSON is YAML
            parts.append(_message(_EXTENSION, _text(_NAME, name) + _message(_VALUE, stated)))
    return b"".join(parts)


def _texts(number: int, words: Iterable[str]) -> bytes:
    return b"".join(_text(number, word) for word in words)


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, data: bytes) -> bytes:
    """Return a length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
