"""Request bodies as objects: strict JSON and YAML, with the duplicate keys that strict validation reports.

JSON parsers keep the last of two equal keys and say nothing; kubectl's strict validation wants each one named. The
common case, a body without duplicates, costs one extra comparison per object. YAML bodies (apply patches) are read as
Kubernetes reads them: timestamps and sexagesimal numbers stay text, and aliases may not blow a document up.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from kestrel.base.errors import InvalidArgument

MAX_DEPTH = 200
"""Deepest nesting of a body; what walks objects afterwards may recurse without fear."""

MAX_NODES = 200_000
"""Most values a YAML document may expand to; 3 MiB of JSON hold fewer."""


class _Doubled(dict[str, Any]):
    """An object in which keys were given twice."""

    repeated: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled, seen, repeated = _Doubled(found), set(), []
    for key, _ in pairs:
        if key in seen and key not in repeated:
            repeated.append(key)
        seen.add(key)
    doubled.repeated = tuple(repeated)
    return doubled


def load_json(data: bytes | str) -> tuple[Any, list[str]]:
    """The value in a JSON text, and the dotted paths of keys given twice. InvalidArgument when it is not JSON."""
    try:
        found = json.loads(data, object_pairs_hook=_pairs, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidArgument("the JSON document is nested too deeply") from error
    except ValueError as error:
        raise InvalidArgument(f"the body is not JSON: {error}") from error
    paths: list[str] = []
    if _inspect(found, 0):
        _collect(found, "", paths)
    return found, paths


def _inspect(value: Any, depth: int) -> bool:
    """Whether any object below has keys given twice; InvalidArgument when it is nested too deeply."""
    if depth > MAX_DEPTH:
        raise InvalidArgument("the document is nested too deeply", limit=MAX_DEPTH)
    found = value.__class__ is _Doubled
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(child, dict | list):
            found |= _inspect(child, depth + 1)
    return found


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


def _collect(value: Any, path: str, paths: list[str]) -> None:
    if isinstance(value, dict):
        if isinstance(value, _Doubled):
            paths.extend(f"{path}.{key}" if path else key for key in value.repeated)
        for key, child in value.items():
            if isinstance(child, dict | list):
                _collect(child, f"{path}.{key}" if path else key, paths)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            if isinstance(child, dict | list):
                _collect(child, f"{path}[{index}]", paths)


def load_yaml(data: bytes | str) -> tuple[Any, list[str]]:
    """The value in one YAML (or JSON) document, and the dotted paths of keys given twice."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    if text.lstrip()[:1] == "{":
        try:
            return load_json(text)
        except InvalidArgument:
            pass  # YAML in flow style begins with a brace, too
    import yaml  # only an apply written by hand pays for it

    try:
        node = yaml.compose(text, Loader=_loader())
        paths: list[str] = []
        if node is None:
            return None, paths
        _repeated(node, "", paths, [0])
        found = _loader_construct(node)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidArgument(f"the body is not YAML: {str(error).replace(chr(10), ' ')}") from error
    _inspect(found, 0)
    return found, paths


@cache
def _loader() -> Any:
    """PyYAML's safe loader in C, less the resolvers of YAML 1.1 that Kubernetes does not have."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Any = type("_KubernetesLoader", (base,), {})
    found.yaml_implicit_resolvers = {
        first: [
            (tag, pattern)
            for tag, pattern in entries
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:merge")
        ]
        for first, entries in base.yaml_implicit_resolvers.items()
    }
    import re

    number = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)\Z")
    found.add_implicit_resolver("tag:yaml.org,2002:int", number, list("-+0123456789"))
    return found


def _loader_construct(node: Any) -> Any:
    loader = _loader()("")
    try:
        return _plain(loader.construct_document(node))
    finally:
        loader.dispose()


def _plain(value: Any) -> Any:
    """JSON's types only: keys become text, as the JSON in between would make them."""
    if isinstance(value, dict):
        return {_key(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise InvalidArgument(f"the body is not YAML that JSON can hold: {type(value).__name__}")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


def _repeated(node: Any, path: str, paths: list[str], count: list[int]) -> None:
    """Collect keys given twice; refuse documents whose aliases multiply."""
    count[0] += 1
    if count[0] > MAX_NODES:
        raise ValueError("the document expands to too many values")
    if node.id == "mapping":
        seen: set[str] = set()
        for key, value in node.value:
            name = f"{path}.{key.value}" if path else str(key.value)
            if key.value in seen:
                paths.append(name)
            seen.add(key.value)
            _repeated(value, name, paths, count)
    elif node.id == "sequence":
        for index, value in enumerate(node.value):
            _repeated(value, f"{path}[{index}]", paths, count)
