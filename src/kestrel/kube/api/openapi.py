"""OpenAPI documents: version 3 by group and version, and version 2 in one piece, made from the table and the schemas.

kubectl needs them for more than documentation: `apply` finds patch strategies here, `create` asks whether the server
validates fields (the `fieldValidation` parameter of a kind's PATCH), `diff` looks for `dryRun`, `explain` prints the
texts. A path exists for every row, verb and subresource, so that nothing is served undocumented.

Documents are made when first asked for and kept encoded. The index names each with the hash of its content, so that
clients may keep them for ever (KEP-2896).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from kestrel.kube.api import schemas
from kestrel.kube.api.enums import ENUMS
from kestrel.kube.api.resource import GroupVersionKind, JSONObject, Resource, Scheme, Subresource
from kestrel.kube.api.scheme import BUILTIN, EXTRA_KINDS

V3_PREFIX, V2_PREFIX = "#/components/schemas/", "#/definitions/"
VERSION = "v1.33.4"

_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_JSON_TYPES = ["application/json", "application/yaml"]
_PATCH_TYPES = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
]
_ACTIONS = {
    "get": "get",
    "list": "list",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "deletecollection",
}
_METHODS = {**{verb: verb for verb in ("get", "patch", "delete")}, "list": "get", "create": "post", "update": "put"}
_METHODS["deletecollection"] = "delete"

_Parameter = tuple[str, str, str]
_WRITE: tuple[_Parameter, ...] = (
    ("dryRun", "string", "All carries the request out without storing anything"),
    ("fieldManager", "string", "The name under which changed fields are recorded"),
    ("fieldValidation", "string", "Strict, Warn or Ignore: what happens to unknown and repeated fields"),
)
_FORCE: _Parameter = ("force", "boolean", "Take conflicting fields over; for apply patches only")
_DELETE: tuple[_Parameter, ...] = (
    ("dryRun", "string", "All carries the request out without storing anything"),
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0 is at once"),
    ("orphanDependents", "boolean", "Old form of propagationPolicy"),
    ("propagationPolicy", "string", "Background, Foreground or Orphan: what happens to dependents"),
)
_LIST: tuple[_Parameter, ...] = (
    ("allowWatchBookmarks", "boolean", "Send bookmark events in a watch"),
    ("continue", "string", "Where the previous page ended"),
    ("fieldSelector", "string", "Restrict the answer by fields"),
    ("labelSelector", "string", "Restrict the answer by labels"),
    ("limit", "integer", "Most objects in one answer"),
    ("resourceVersion", "string", "How recent the answer must be, or where a watch begins"),
    ("resourceVersionMatch", "string", "How resourceVersion is meant"),
    ("sendInitialEvents", "boolean", "Begin a watch with the objects there are"),
    ("timeoutSeconds", "integer", "How long a list or watch may take"),
    ("watch", "boolean", "Follow changes instead of listing"),
)
_PARAMETERS: dict[str, tuple[_Parameter, ...]] = {
    "create": _WRITE,
    "update": _WRITE,
    "patch": (*_WRITE, _FORCE),
    "delete": _DELETE,
    "deletecollection": (*_DELETE, *_LIST),
    "list": _LIST,
    "get": (),
}


def v3_index(scheme: Scheme = BUILTIN) -> bytes:
    """The list of documents at `/openapi/v3`."""
    return _v3_index(scheme)


def v3_document(group: str, version: str, scheme: Scheme = BUILTIN) -> bytes | None:
    """The document of one group and version; None when nothing is served there."""
    return _v3_document(group, version, scheme) if scheme.of_group_version(group, version) else None


def v2(scheme: Scheme = BUILTIN) -> bytes:
    """The Swagger 2.0 document of everything, at `/openapi/v2`."""
    return _v2(scheme)


@lru_cache(maxsize=4)
def _v3_index(scheme: Scheme) -> bytes:
    paths = {}
    for group, versions in scheme.groups().items():
        for version in versions:
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(_v3_document(group, version, scheme)).hexdigest().upper()
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={digest}"}
    return _encoded({"paths": paths})


@lru_cache(maxsize=64)
def _v3_document(group: str, version: str, scheme: Scheme) -> bytes:
    rows = scheme.of_group_version(group, version)
    return _encoded(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": {path: body for row in rows for path, body in _paths(row, V3).items()},
            "components": {"schemas": _definitions(rows, V3)},
        }
    )


@lru_cache(maxsize=2)
def _v2(scheme: Scheme) -> bytes:
    return _encoded(
        {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": {path: body for row in scheme for path, body in _paths(row, V2).items()},
            "definitions": _definitions(scheme, V2),
        }
    )


def _encoded(document: JSONObject) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


# -- the two dialects -------------------------------------------------------------------------------------------------


class Dialect:
    """What OpenAPI 2 and 3 write differently."""

    def __init__(self, prefix: str, *, three: bool) -> None:
        self.prefix = prefix
        self.three = three

    def reference(self, name: str) -> JSONObject:
        """A schema by name."""
        return {"$ref": self.prefix + name}

    def field(self, reference: JSONObject) -> JSONObject:
        """A field of another schema; version 3 allows nothing beside `$ref`, so that it is wrapped."""
        return {"allOf": [reference]} if self.three else reference

    def parameter(self, name: str, kind: str, text: str, *, where: str = "query") -> JSONObject:
        """A parameter of a path or an operation."""
        found: JSONObject = {"name": name, "in": where, "description": text}
        if where == "path":
            found["required"] = True
        typed = {"type": kind, "uniqueItems": True}
        return {**found, "schema": typed} if self.three else {**found, **typed}

    def body(self, operation: JSONObject, reference: JSONObject, types: list[str], *, required: bool) -> None:
        """Add a request body to an operation."""
        if self.three:
            content = {media: {"schema": reference} for media in types}
            operation["requestBody"] = {"content": content, **({"required": True} if required else {})}
            return
        operation["consumes"] = types
        entry: JSONObject = {"name": "body", "in": "body", "schema": reference}
        operation.setdefault("parameters", []).append({**entry, **({"required": True} if required else {})})

    def answer(self, operation: JSONObject, reference: JSONObject) -> None:
        """Add the answers of an operation."""
        ok: JSONObject = {"description": "OK"}
        if self.three:
            ok["content"] = {media: {"schema": reference} for media in _JSON_TYPES}
        else:
            ok["schema"] = reference
            operation["produces"] = _JSON_TYPES
        operation["responses"] = {"200": ok, "401": {"description": "Unauthorized"}}


V3 = Dialect(V3_PREFIX, three=True)
V2 = Dialect(V2_PREFIX, three=False)


# -- paths ------------------------------------------------------------------------------------------------------------


def _paths(row: Resource, dialect: Dialect) -> dict[str, JSONObject]:
    """Every path of one resource."""
    base = f"{row.path_prefix}/namespaces/{{namespace}}" if row.namespaced else row.path_prefix
    found: dict[str, JSONObject] = {}
    collection = {verb for verb in row.verbs if verb in ("create", "list", "deletecollection")}
    if collection:
        found[f"{base}/{row.plural}"] = _path(row, dialect, collection, row.gvk, "", named=False)
    if row.namespaced and "list" in row.verbs:
        found[f"{row.path_prefix}/{row.plural}"] = _path(
            row, dialect, {"list"}, row.gvk, "ForAllNamespaces", named=False, namespaced=False
        )
    single = {verb for verb in row.verbs if verb in ("get", "update", "patch", "delete")}
    if single:
        found[f"{base}/{row.plural}/{{name}}"] = _path(row, dialect, single, row.gvk, "")
    for sub in row.subresources:
        kind = row.subresource_gvk(sub)
        suffix = "".join(part.capitalize() for part in sub.name.split("/"))
        found[f"{base}/{row.plural}/{{name}}/{sub.name}"] = _path(row, dialect, set(sub.verbs), kind, suffix, sub=sub)
    return found


def _path(
    row: Resource,
    dialect: Dialect,
    verbs: Iterable[str],
    kind: GroupVersionKind,
    suffix: str,
    *,
    named: bool = True,
    namespaced: bool | None = None,
    sub: Subresource | None = None,
) -> JSONObject:
    parameters = []
    if named:
        parameters.append(dialect.parameter("name", "string", f"Name of the {row.kind}", where="path"))
    if row.namespaced if namespaced is None else namespaced:
        parameters.append(dialect.parameter("namespace", "string", "Namespace of the object", where="path"))
    found: JSONObject = {_METHODS[v]: _operation(row, dialect, v, kind, suffix, sub) for v in sorted(verbs)}
    if "list" in verbs and "deletecollection" in verbs:
        found["delete"] = _operation(row, dialect, "deletecollection", kind, suffix, sub)
    if parameters:
        found["parameters"] = parameters
    return found


def _operation(
    row: Resource, dialect: Dialect, verb: str, kind: GroupVersionKind, suffix: str, sub: Subresource | None
) -> JSONObject:
    known = schemas.load().name_of(kind)
    body = dialect.reference(known) if known else {"type": "object"}
    tag = f"{(row.group.split('.')[0] or 'core')}_{row.version}"
    found: JSONObject = {
        "tags": [tag],
        "description": f"{verb} {row.kind}" + (f" {sub.name}" if sub else ""),
        "operationId": f"{verb}{tag.title().replace('_', '')}{row.kind}{suffix}",
        "x-kubernetes-action": "connect" if sub and sub.kind.endswith("Options") else _ACTIONS[verb],
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    }
    found["parameters"] = [dialect.parameter(*entry) for entry in _PARAMETERS[verb]]
    if verb == "patch":
        types = _PATCH_TYPES[:3] if row.custom else _PATCH_TYPES
        dialect.body(found, {"type": "object"}, types, required=True)
    elif verb in ("create", "update") and known:
        dialect.body(found, body, ["*/*"], required=True)
    elif verb in ("delete", "deletecollection"):
        dialect.body(found, dialect.reference(_DELETE_OPTIONS), ["*/*"], required=False)
    dialect.answer(found, _answered(row, dialect, verb, body))
    return found


def _answered(row: Resource, dialect: Dialect, verb: str, body: JSONObject) -> JSONObject:
    if verb in ("delete", "deletecollection"):
        return dialect.reference(_STATUS)
    if verb == "list":
        name = schemas.load().name_of(GroupVersionKind(row.group, row.version, row.collection_kind))
        return dialect.reference(name) if name else {"type": "object"}
    return body


# -- schemas ----------------------------------------------------------------------------------------------------------


def _definitions(rows: Iterable[Resource], dialect: Dialect) -> dict[str, JSONObject]:
    """The schemas that some rows reach, with their texts."""
    loaded, texts = schemas.load(), schemas.descriptions()
    kinds: list[GroupVersionKind] = list(EXTRA_KINDS)
    for row in rows:
        kinds += [row.gvk, GroupVersionKind(row.group, row.version, row.collection_kind)]
        kinds += [row.subresource_gvk(sub) for sub in row.subresources]
    todo = [name for kind in kinds if (name := loaded.name_of(kind))]
    found: dict[str, JSONObject] = {}
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = _definition(name, loaded.raw(name), texts.get(name, {}), dialect, todo.append)
    return {name: found[name] for name in sorted(found)}


def _definition(
    name: str, raw: dict[str, Any], texts: dict[str, str], dialect: Dialect, use: Callable[[str], None]
) -> JSONObject:
    found: JSONObject = {"description": texts[""]} if texts.get("") else {}
    if "type" in raw:
        return {**found, **_scalar_definition(raw["type"], dialect)}
    found["type"] = "object"
    if raw.get("required"):
        found["required"] = raw["required"]
    found["properties"] = {
        field: _field(entry, texts.get(field, ""), dialect, use) for field, entry in raw["fields"].items()
    }
    for field, words in ENUMS.get(name, {}).items() if dialect.three else ():
        found["properties"][field]["enum"] = list(words)
    if raw.get("gvk"):
        found["x-kubernetes-group-version-kind"] = [
            {"group": group, "kind": kind, "version": version} for group, version, kind in raw["gvk"]
        ]
    if raw.get("map"):
        found["x-kubernetes-map-type"] = raw["map"]
    return found


def _scalar_definition(word: str, dialect: Dialect) -> JSONObject:
    if word == "q":
        return {"oneOf": [{"type": "string"}, {"type": "number"}]} if dialect.three else {"type": "string"}
    if word == "s:int-or-string":
        if dialect.three:
            return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
        return {"type": "string", "format": "int-or-string"}
    if word.startswith("{"):
        return {"type": "object"}
    return _type(word, dialect, lambda _: None)


def _field(entry: Any, text: str, dialect: Dialect, use: Callable[[str], None]) -> JSONObject:
    word, extensions = (entry, {}) if isinstance(entry, str) else entry
    typed = _type(word, dialect, use)
    if "$ref" in typed:
        typed = dialect.field(typed)
    found = {"description": text, **typed} if text else typed
    for short, value in extensions.items():
        found[_EXTENSIONS[short]] = value
    return found


_EXTENSIONS = {
    "list": "x-kubernetes-list-type",
    "keys": "x-kubernetes-list-map-keys",
    "strategy": "x-kubernetes-patch-strategy",
    "merge": "x-kubernetes-patch-merge-key",
    "map": "x-kubernetes-map-type",
}
_TYPES = {"s": "string", "i": "integer", "n": "number", "b": "boolean"}


def _type(word: str, dialect: Dialect, use: Callable[[str], None]) -> JSONObject:
    """A type word as OpenAPI; `use` is told the definitions it refers to."""
    if word[0] == "@":
        use(word[1:])
        return dialect.reference(word[1:])
    if word[0] == "[":
        return {"type": "array", "items": _type(word[1:], dialect, use)}
    if word[0] == "{":
        return {"type": "object", "additionalProperties": _type(word[1:], dialect, use)}
    if word[0] == "x":
        return {}
    found: JSONObject = {"type": _TYPES[word[0]]}
    if len(word) > 2:
        found["format"] = word[2:]
    return found
