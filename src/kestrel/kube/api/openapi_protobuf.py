"""The OpenAPI v2 document as protobuf, which is the only form kubectl 1.27 and 1.28 ask for first.

They refuse to explain or apply when `/openapi/v2` has no
`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`. The message is gnostic's `openapi.v2.Document`; its field
numbers stand beside the fields they carry. Only what our own document uses is written (`openapi.v2`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from kestrel.kube.api import openapi
from kestrel.kube.api.resource import JSONObject, Scheme
from kestrel.kube.api.scheme import BUILTIN
from kestrel.kube.api.wire import delimited, flag, text

ASKED: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""The media type clients ask for, in Accept."""

MEDIA_TYPE: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""The media type of the answer: `@` may not stand in one, and Go's parser refuses it."""

_OPERATIONS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def v2(scheme: Scheme = BUILTIN) -> bytes:
    """The document of everything that is served."""
    return _v2(scheme)


@lru_cache(maxsize=2)
def _v2(scheme: Scheme) -> bytes:
    document: JSONObject = json.loads(openapi.v2(scheme))
    info = text(1, document["info"]["title"]) + text(2, document["info"]["version"])
    paths = _named(2, ((path, _path(item)) for path, item in document["paths"].items()))
    definitions = _named(1, ((name, _schema(body)) for name, body in document["definitions"].items()))
    return text(1, document["swagger"]) + delimited(2, info) + delimited(8, paths) + delimited(9, definitions)


def _named(number: int, entries: Iterable[tuple[str, bytes]]) -> bytes:
    """A map as gnostic has it: a list of name and value."""
    return b"".join(delimited(number, text(1, name) + delimited(2, value)) for name, value in entries)


def _extensions(number: int, holder: Mapping[str, Any]) -> bytes:
    """Every `x-` member; values are YAML, of which JSON is a part."""
    return _named(number, ((key, text(2, json.dumps(value))) for key, value in holder.items() if key.startswith("x-")))


def _path(item: JSONObject) -> bytes:
    operations = (delimited(number, _operation(item[verb])) for verb, number in _OPERATIONS.items() if verb in item)
    return b"".join(operations) + _parameters(9, item)


def _operation(operation: JSONObject) -> bytes:
    answers = _named(1, ((code, delimited(1, _answer(body))) for code, body in operation["responses"].items()))
    return b"".join(
        (
            b"".join(text(1, tag) for tag in operation.get("tags", ())),
            text(3, operation.get("description")),
            text(5, operation.get("operationId")),
            b"".join(text(6, media) for media in operation.get("produces", ())),
            b"".join(text(7, media) for media in operation.get("consumes", ())),
            _parameters(8, operation),
            delimited(9, answers),
            _extensions(13, operation),
        )
    )


def _answer(answer: JSONObject) -> bytes:
    found = text(1, answer.get("description"))
    return found + delimited(2, delimited(1, _schema(answer["schema"]))) if "schema" in answer else found


def _parameters(number: int, holder: JSONObject) -> bytes:
    return b"".join(delimited(number, delimited(1, _parameter(entry))) for entry in holder.get("parameters", ()))


def _parameter(entry: JSONObject) -> bytes:
    """A body parameter is 1; of the others, those of the query are 3 and those of the path 4."""
    words = text(3, entry.get("description")) + text(4, entry["name"])
    if entry["in"] == "body":
        head = text(2, entry["name"]) + text(3, "body") + flag(4, entry.get("required"))
        return delimited(1, head + delimited(5, _schema(entry["schema"])))
    head = flag(1, entry.get("required")) + text(2, entry["in"]) + words
    if entry["in"] == "query":
        return delimited(2, delimited(3, head + text(6, entry["type"]) + flag(20, entry.get("uniqueItems"))))
    return delimited(2, delimited(4, head + text(5, entry["type"]) + flag(19, entry.get("uniqueItems"))))


def _schema(schema: JSONObject) -> bytes:
    found = text(1, schema.get("$ref")) + text(2, schema.get("format")) + text(4, schema.get("description"))
    found += b"".join(text(19, name) for name in schema.get("required", ()))
    if "additionalProperties" in schema:
        found += delimited(21, delimited(1, _schema(schema["additionalProperties"])))
    if "type" in schema:
        found += delimited(22, text(1, schema["type"]))
    if "items" in schema:
        found += delimited(23, delimited(1, _schema(schema["items"])))
    if "properties" in schema:
        found += delimited(25, _named(1, ((name, _schema(body)) for name, body in schema["properties"].items())))
    return found + _extensions(31, schema)
