"""What a request asks for: the path, the query and the body of the REST API, read once.

`Route` is a path taken apart by the table of resources, with the verb Kubernetes calls it by (`list` and `watch` are
GETs of a collection). `Options` is the query. Bodies come as JSON, YAML or protobuf; each is turned into one plain JSON
object, with limits on size and depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import yaml

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import documents, protobuf, status
from kestrel.kube.api.resource import GroupVersionKind
from kestrel.kube.api.scheme import JSONObject, Resource, Scheme
from kestrel.kube.apiserver.auth import Attributes
from kestrel.kube.apiserver.call import IGNORE, STRICT, WARN
from kestrel.kube.client import APPLY_PATCH, ListOptions

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body, as kube-apiserver's."""
MAX_DEPTH = 128

JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
BODIES = (JSON, YAML, PROTOBUF)
_YAML_TYPES = (YAML, "application/x-yaml", "text/yaml")

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path below /api or /apis, taken apart. An empty name means the collection."""

    resource: Resource
    verb: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def attributes(self) -> Attributes:
        """What authorization is asked about."""
        resource = self.resource
        return Attributes(
            verb=self.verb,
            group=resource.group,
            version=resource.version,
            resource=resource.plural,
            subresource=self.subresource,
            namespace=self.namespace,
            name=self.name,
        )


def route(scheme: Scheme, method: str, path: str, query: Mapping[str, str]) -> Route | None:
    """Take a path apart; None when no resource is served there.

    `/api/v1/namespaces/x/pods/y/log` is the core group's form, `/apis/<group>/<version>/...` that of the others. A
    namespace itself is `/api/v1/namespaces/x`, and what follows its name is either a subresource or a resource in it.
    """
    parts = [unquote(part) for part in path.split("/") if part]
    if len(parts) >= 2 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 3 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        resource = scheme.by_plural(group, version, rest[2])
        owner = scheme.by_plural(group, version, "namespaces")
        if resource is not None and (owner is None or owner.subresource(rest[2]) is None):
            namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        return None
    resource = scheme.by_plural(group, version, rest[0])
    if resource is None or (namespace and not resource.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and resource.subresource(subresource) is None:
        return None
    if name and resource.namespaced and not namespace:
        return None
    verb = _verb(method, name, subresource, query)
    return Route(resource=resource, verb=verb, namespace=namespace, name=name, subresource=subresource)


def _verb(method: str, name: str, subresource: str, query: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD") and boolean(query.get("watch", "")) and not subresource:
        return "watch"
    if method in ("GET", "HEAD") and not name:
        return "list"
    if method == "DELETE" and not name:
        return "deletecollection"
    return _VERBS.get(method, method.lower())


def boolean(text: str) -> bool:
    """Read a flag of the query: present and not false."""
    return text.lower() not in ("", "0", "false", "f")


def list_options(query: Mapping[str, str]) -> ListOptions:
    """Read the query of a list or watch; raises InvalidArgument for numbers that are none."""
    initial = query.get("sendInitialEvents")
    return ListOptions(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        resource_version=query.get("resourceVersion", ""),
        resource_version_match=query.get("resourceVersionMatch", ""),
        limit=integer(query, "limit") or 0,
        continuation=query.get("continue", ""),
        bookmarks=boolean(query.get("allowWatchBookmarks", "")),
        send_initial_events=boolean(initial) if initial is not None else None,
        timeout_seconds=integer(query, "timeoutSeconds"),
    )


def integer(query: Mapping[str, str], name: str) -> int | None:
    """Read a number of the query, None when it is absent."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -(1 << 63) <= value < 1 << 63:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value


def validation(query: Mapping[str, str]) -> str:
    """Read `fieldValidation`; the default of the server is to warn."""
    word = query.get("fieldValidation", "") or WARN
    if word not in (STRICT, WARN, IGNORE):
        raise status.bad_request(
            f'fieldValidation: Unsupported value: "{word}": supported values: "Ignore", "Strict", "Warn"'
        )
    return word


def dry_run(values: list[str]) -> bool:
    """Read `dryRun`, whose only value is `All`."""
    for value in values:
        if value != "All":
            raise status.bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return bool(values)


def media_type(content_type: str) -> str:
    """Return the bare media type of a Content-Type header."""
    return content_type.partition(";")[0].strip().lower()


def decode(
    data: bytes, content_type: str, expected: GroupVersionKind | None, *, strict: bool = False
) -> tuple[JSONObject, list[str]]:
    """Return the object in a body, and the duplicate fields that were met when `strict` asks to look for them.

    `expected` is what a protobuf body must be when it does not say.
    """
    media = media_type(content_type) or JSON
    try:
        if media == PROTOBUF:
            return protobuf.decode_body(data, expected), []
        if media in _YAML_TYPES:
            found, repeated = read_document(data, _load_yaml)
        elif media == JSON:
            found, repeated = read_document(data, documents.load_json)
        else:
            raise status.unsupported_media_type(BODIES)
    except InvalidArgument as error:
        raise _as_status(error) from error
    if not isinstance(found, dict):
        what = _JSON_WORDS.get(type(found), "value")
        raise status.bad_request(f"couldn't get version/kind; json parse error: cannot unmarshal {what} into an object")
    return found, [f'duplicate field "{path}"' for path in repeated] if strict else []


_JSON_WORDS = {list: "array", str: "string", bool: "bool", int: "number", float: "number", type(None): "null"}


def _as_status(error: InvalidArgument) -> InvalidArgument:
    return error if "status" in error.context else status.bad_request(error.message)


def read_document(data: bytes, load: Callable[[bytes], tuple[Any, list[str]]]) -> tuple[Any, list[str]]:
    """Return a document and the paths of its repeated keys; raises InvalidArgument when it nests too deep."""
    found, repeated = load(data)
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return found, repeated
    raise status.bad_request(f"the body is nested deeper than {MAX_DEPTH} levels")


def _load_yaml(data: bytes) -> tuple[Any, list[str]]:
    """Read YAML after a look at its depth: PyYAML recurses in C, and a deep text ends the process."""
    depth = 0
    try:
        for event in yaml.parse(data, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise status.bad_request(f"the body is nested deeper than {MAX_DEPTH} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except (yaml.YAMLError, ValueError) as error:
        sentence = " ".join(str(error).split())
        raise status.bad_request(f"error converting YAML to JSON: yaml: {sentence}") from None
    return documents.load_yaml(data)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [child for child in value.values() if isinstance(child, dict | list)]
    return [child for child in value if isinstance(child, dict | list)] if isinstance(value, list) else ()


def patch_body(data: bytes, content_type: str) -> tuple[Any, list[str]]:
    """Return the patch in a body: YAML for an apply patch, JSON for the others."""
    load = _load_yaml if content_type == APPLY_PATCH else documents.load_json
    try:
        return read_document(data, load)
    except InvalidArgument as error:
        raise _as_status(error) from error
