"""Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge patch.

Each function takes an object and a patch and returns a new object; neither argument is changed, and parts may be shared
between old and new. A patch that does not fit is an InvalidArgument with a Status of 422, one that is no patch of 400.

Strategic merge knows from the schema which lists merge, by which key, and which only ever replace; the directives are
those of kubernetes.io "Update API Objects in Place Using kubectl patch" and the community's strategic-merge-patch.md.
The order of a merged list is the patch's order woven into the live one: a new item goes in front of the live items that
the patch does not mention, as kube-apiserver has it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import status
from kestrel.kube.api.resource import JSONObject, Resource
from kestrel.kube.api.schemas import LIST, Schemas, Type

MAX_OPERATIONS = 10_000
"""Most operations of one JSON Patch, as kube-apiserver allows."""

MAX_COPIED = 200_000
"""Most values that copy operations of one patch may make; copies of copies grow without end."""

_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def _unprocessable(why: str) -> InvalidArgument:
    message = f"the server rejected our request due to an error in our request: {why}"
    # Details without a cause: kubectl prints a cause as a field and its message, and here there is no field.
    return InvalidArgument(message, status=status.status(422, "Invalid", message, {"causes": []}))


# -- JSON Patch -------------------------------------------------------------------------------------------------------


def json_patch(obj: Any, operations: Any) -> Any:
    """Carry out the operations of RFC 6902 in order, all or none."""
    if not isinstance(operations, list) or not all(isinstance(entry, dict) for entry in operations):
        raise status.bad_request("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise status.too_large(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        )
    root = [deepcopy(obj)]  # the document hangs below a list, so that replacing the whole is no special case
    budget = [MAX_COPIED]
    for entry in operations:
        _operate(root, entry, budget)
    return root[0]


def _operate(root: list[Any], entry: JSONObject, budget: list[int]) -> None:
    path = _pointer(entry, "path")
    match entry.get("op"):
        case "add":
            _add(root, path, deepcopy(_value(entry)))
        case "remove":
            _remove(root, path)
        case "replace":
            holder, key = _existing(root, path)
            holder[key] = deepcopy(_value(entry))
        case "move":
            source = _pointer(entry, "from")
            if path[: len(source)] == source and len(path) > len(source):
                raise _unprocessable("a value cannot be moved into itself")
            _add(root, path, _remove(root, source))
        case "copy":
            holder, key = _existing(root, _pointer(entry, "from"))
            budget[0] -= _size(holder[key])
            if budget[0] < 0:
                raise status.too_large("the copies of a JSON patch grow too large")
            _add(root, path, deepcopy(holder[key]))
        case "test":
            holder, key = _existing(root, path)
            if not _same(holder[key], entry.get("value")):
                raise _unprocessable(f"testing value {entry['path']} failed: test failed")
        case other:
            raise _unprocessable(f"Unexpected kind: {other}")


def _value(entry: JSONObject) -> Any:
    if "value" not in entry:
        raise _unprocessable(f"{entry['op']} operation does not have a value: missing value")
    return entry["value"]


def _pointer(entry: JSONObject, key: str) -> list[str]:
    """The steps of a JSON pointer (RFC 6901)."""
    text = entry.get(key)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise _unprocessable(f"operation {entry.get('op')!r} has no usable {key!r}")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _shown(path: list[str]) -> str:
    return "/" + "/".join(path)


def _index(items: list[Any], step: str, *, ends: bool) -> int:
    """A list index; `ends` also allows the place behind the last item."""
    if step == "-" and ends:
        return len(items)
    if not step.isascii() or not step.isdigit() or len(step) > 9 or (len(step) > 1 and step[0] == "0"):
        raise _unprocessable(f"{step!r} is no list index")
    index = int(step)
    if index > len(items) or (index == len(items) and not ends):
        raise _unprocessable(f"Unable to access invalid index: {index}: invalid index referenced")
    return index


def _holder(root: list[Any], path: list[str]) -> Any:
    """The container the last step of a path points into."""
    found: Any = root[0]
    for depth, step in enumerate(path[:-1]):
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list):
            found = found[_index(found, step, ends=False)]
        else:
            raise _unprocessable(f"doc is missing path: {_shown(path[: depth + 1])}: missing value")
    if not isinstance(found, dict | list):
        raise _unprocessable(f"doc is missing path: {_shown(path)}: missing value")
    return found


def _existing(root: list[Any], path: list[str]) -> tuple[Any, Any]:
    """Container and key of a value that is there."""
    if not path:
        return root, 0
    holder = _holder(root, path)
    if isinstance(holder, list):
        return holder, _index(holder, path[-1], ends=False)
    if path[-1] not in holder:
        raise _unprocessable(f"doc is missing key: {_shown(path)}: missing value")
    return holder, path[-1]


def _add(root: list[Any], path: list[str], value: Any) -> None:
    if not path:
        root[0] = value
        return
    holder = _holder(root, path)
    if isinstance(holder, list):
        holder.insert(_index(holder, path[-1], ends=True), value)
    else:
        holder[path[-1]] = value


def _remove(root: list[Any], path: list[str]) -> Any:
    holder, key = _existing(root, path)
    if holder is root:
        raise _unprocessable("the whole document cannot be removed")
    return holder.pop(key)


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


# -- JSON Merge Patch -------------------------------------------------------------------------------------------------


def merge_patch(obj: Any, patch: Any) -> Any:
    """Merge by RFC 7386: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    found = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merge_patch(found.get(key), value)
    return found


# -- strategic merge --------------------------------------------------------------------------------------------------


def strategic_merge_patch(schemas: Schemas, resource: Resource, obj: JSONObject, patch: Any) -> JSONObject:
    """Merge as the fields' patch strategies say; InvalidArgument for a kind without schema or a broken directive."""
    schema = schemas.of(resource)
    if schema is schemas.any:
        raise status.unsupported_media_type(("application/json-patch+json", "application/merge-patch+json"))
    if not isinstance(patch, dict):
        raise status.bad_request("a strategic merge patch is an object")
    return _merge_object(schema, obj, patch)


def _merge_object(schema: Type, obj: JSONObject, patch: JSONObject) -> JSONObject:
    directive = patch.get("$patch")
    if directive is not None and directive not in ("replace", "delete", "merge"):
        raise status.bad_request(f"Unknown patch type found: {directive}")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    found = _retained(obj, patch)
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(schema.child(key), found, key, value)
    for key, value in patch.items():
        if key.startswith(_DELETE_PRIMITIVES):
            name = key.removeprefix(_DELETE_PRIMITIVES)
            gone = _listed(key, value)
            if isinstance(found.get(name), list):
                found[name] = [item for item in found[name] if item not in gone]
    for key, value in patch.items():
        if key.startswith(_ORDER):
            _reorder(schema, found, obj, key.removeprefix(_ORDER), _listed(key, value))
    return found


def _retained(obj: JSONObject, patch: JSONObject) -> JSONObject:
    """The live object, less what a `$retainKeys` directive does not name."""
    if "$retainKeys" not in patch:
        return dict(obj)
    kept = _listed("$retainKeys", patch["$retainKeys"])
    for key in patch:
        if not key.startswith("$") and key not in kept:
            raise status.bad_request("$retainKeys directive must contain all the fields present in the patch")
    return {key: value for key, value in obj.items() if key in kept}


def _listed(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise status.bad_request(f"the directive {key} wants a list")
    return value


def _merge_field(schema: Type | None, found: JSONObject, key: str, value: Any) -> None:
    if value is None:
        found.pop(key, None)
        return
    live = found.get(key)
    merges = schema is not None and "replace" not in schema.strategies
    if isinstance(value, dict) and schema is not None and merges:
        merged = _merge_object(schema, live if isinstance(live, dict) else {}, value)
        if value.get("$patch") == "delete":
            found.pop(key, None)
        else:
            found[key] = merged if isinstance(live, dict) else _plain(merged)
    elif isinstance(value, list) and schema is not None and schema.kind == LIST and "merge" in schema.strategies:
        found[key] = _merge_list(schema, live if isinstance(live, list) else [], value)
    else:
        found[key] = _plain(value)


def _merge_list(schema: Type, live: list[Any], patch: list[Any]) -> list[Any]:
    if not schema.merge_key:
        merged = [*live, *(item for item in patch if item not in live)]
        return _woven(merged, patch, live, "")
    key = schema.merge_key
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [_plain(item) for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    merged = list(live)
    kept = []
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise status.bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(merged) if isinstance(old, dict) and old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if not (isinstance(old, dict) and old.get(key) == item[key])]
            continue
        kept.append(item)
        if at is None:
            merged.append(_plain(_merge_object(schema.item, {}, item)))
        else:
            merged[at] = _merge_object(schema.item, merged[at], item)
    return _woven(merged, [item[key] for item in kept], [_identity(item, key) for item in live], key)


def _reorder(schema: Type, found: JSONObject, live: JSONObject, name: str, order: list[Any]) -> None:
    field = schema.child(name)
    items = found.get(name)
    if field is None or not isinstance(items, list):
        return
    key = field.merge_key
    before = live.get(name) if isinstance(live.get(name), list) else []
    found[name] = _woven(items, [_identity(i, key) for i in order], [_identity(i, key) for i in before or ()], key)


def _identity(item: Any, key: str) -> Any:
    return item.get(key) if key and isinstance(item, dict) else item


def _woven(items: list[Any], order: list[Any], live: list[Any], key: str) -> list[Any]:
    """Put items in the patch's order, and the live ones it does not mention between them by their live order."""
    mentioned = [item for item in items if _identity(item, key) in order]
    mentioned.sort(key=lambda item: order.index(_identity(item, key)))
    others = [item for item in items if _identity(item, key) not in order]
    found: list[Any] = []
    while mentioned and others:
        left, right = _identity(others[0], key), _identity(mentioned[0], key)
        both = left in live and right in live
        take = others if both and live.index(left) < live.index(right) else mentioned
        found.append(take.pop(0))
    return found + mentioned + others


def _plain(value: Any) -> Any:
    """A patch's value as it is stored where nothing was: without directives and nulls."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None and not k.startswith("$")}
    if isinstance(value, list):
        return [_plain(item) for item in value if not (isinstance(item, dict) and item.get("$patch") == "delete")]
    return value
