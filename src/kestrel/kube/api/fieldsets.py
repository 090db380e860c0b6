"""Sets of field paths: what a manager owns, what two objects differ in.

A set is a tree in the shape of FieldsV1: keys are path elements (`f:name` a field, `k:{"name":"c"}` a list item by its
keys, `v:"x"` an item of a set), and a node is a member of the set itself when it has the key `.`. On the wire a node
without children is written `{}`; here it is always `{".": {}}`, so that the algebra has one case.

The schema decides how deep a set goes: into objects, maps, list maps and sets, never into atomic values
(kubernetes.io "Server-Side Apply", merge strategy).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kestrel.kube.api.schemas import ANY, LIST, MAP, OBJECT, Type

Node = dict[str, Any]
SELF = "."

KEY_DEFAULTS: Mapping[str, Any] = {"protocol": "TCP"}
"""Key fields of list maps that have a default, by name: ports are told apart by number and protocol."""


def leaf() -> Node:
    """A member without members below."""
    return {SELF: {}}


def from_wire(fields: Any) -> Node:
    """A set from FieldsV1; anything that is not one is the empty set."""
    if not isinstance(fields, dict):
        return {}
    return {key: {} if key == SELF else _from_wire(value) for key, value in fields.items()}


def _from_wire(fields: Any) -> Node:
    return from_wire(fields) or leaf()


def to_wire(node: Node) -> Node:
    """The set as FieldsV1, elements in order."""
    return {key: _to_wire(node[key]) for key in sorted(node)}


def _to_wire(node: Node) -> Node:
    return {} if len(node) == 1 and SELF in node else to_wire(node)


# -- algebra ----------------------------------------------------------------------------------------------------------


def union(left: Node, right: Node) -> Node:
    """Members of either."""
    if not left or not right:
        return left or right
    found = dict(left)
    for key, node in right.items():
        found[key] = union(found[key], node) if key in found else node
    return found


def difference(left: Node, right: Node) -> Node:
    """Members of `left` that are not members of `right`."""
    if not right:
        return left
    found: Node = {}
    for key, node in left.items():
        if key not in right:
            found[key] = node
        elif key != SELF:
            rest = difference(node, right[key])
            if rest:
                found[key] = rest
    return found


def intersection(left: Node, right: Node) -> Node:
    """Members of both."""
    found: Node = {}
    for key, node in left.items():
        if key not in right:
            continue
        both: Node = {} if key == SELF else intersection(node, right[key])
        if both or key == SELF:
            found[key] = both
    return found


def without(node: Node, branches: Node) -> Node:
    """The set less whole branches: a member of `branches` takes away all that is below it, too."""
    found: Node = {}
    for key, child in node.items():
        cut = branches.get(key)
        if cut is None:
            found[key] = child
        elif key != SELF and SELF not in cut:
            rest = without(child, cut)
            if rest:
                found[key] = rest
    return found


def paths(node: Node, prefix: str = "") -> Iterator[str]:
    """The members as text: `.spec.containers[name="c"].image`."""
    if SELF in node:
        yield prefix
    for key in sorted(node):
        if key != SELF:
            yield from paths(node[key], prefix + printed(key))


def printed(element: str) -> str:
    """A path element as messages show it."""
    kind, _, rest = element.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        try:
            keys = json.loads(rest)
        except ValueError:
            return f"[{rest}]"
        return "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
    return f"[={rest}]" if kind == "v" else f"[{rest}]"


# -- objects ----------------------------------------------------------------------------------------------------------


def element_of(schema: Type, item: Any) -> str:
    """The path element of an item of a list map or set."""
    if not schema.is_list_map or not isinstance(item, dict):
        return "v:" + json.dumps(item, separators=(",", ":"), ensure_ascii=False)
    keys = {key: item.get(key, KEY_DEFAULTS.get(key)) for key in sorted(schema.keys)}
    keys = {key: value for key, value in keys.items() if value is not None}
    return "k:" + json.dumps(keys, separators=(",", ":"), ensure_ascii=False)


def is_leaf(schema: Type, value: Any) -> bool:
    """Whether one manager owns the value as a whole."""
    if isinstance(value, dict):
        return schema.kind not in (OBJECT, MAP, ANY) or schema.map_type == "atomic"
    return not (isinstance(value, list) and schema.kind == LIST and not schema.is_atomic)


def covered(schema: Type, value: Any, *, containers: bool = False) -> Node:
    """The fields a value sets. `containers` makes objects, maps and lists members too, not only what is in them."""
    if is_leaf(schema, value) or not value:
        return leaf()
    found: Node = leaf() if containers else {}
    if isinstance(value, dict):
        for key, child in value.items():
            inner = schema.child(key)
            if inner is None:
                continue
            node = covered(inner, child, containers=containers)
            found[f"f:{key}"] = node if schema.kind == OBJECT else union(leaf(), node)
        return found
    for item in value:
        node = covered(schema.item, item, containers=containers)
        found[element_of(schema, item)] = union(leaf(), node)
    return found


def compare(schema: Type, old: Any, new: Any) -> tuple[Node, Node]:
    """What changed between two values, added or modified, and what was removed."""
    if _both(dict, old, new) and not is_leaf(schema, new):
        return _compare_maps(schema, old, new)
    if _both(list, old, new) and not is_leaf(schema, new):
        return _compare_lists(schema, old, new)
    return ({}, {}) if _equal(old, new) else (leaf(), {})


def _both(kind: type, old: Any, new: Any) -> bool:
    return isinstance(old, kind) and isinstance(new, kind)


def _equal(old: Any, new: Any) -> bool:
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _compare_maps(schema: Type, old: dict[str, Any], new: dict[str, Any]) -> tuple[Node, Node]:
    changed: Node = {}
    removed: Node = {}
    for key, value in new.items():
        before = old.get(key)
        if before is value:
            continue
        inner = schema.child(key)
        if inner is None:
            continue
        if before is None:
            changed[f"f:{key}"] = covered(inner, value, containers=True)
            continue
        _put(changed, removed, f"f:{key}", compare(inner, before, value))
    for key, value in old.items():
        inner = schema.child(key)
        if key not in new and inner is not None:
            removed[f"f:{key}"] = covered(inner, value, containers=True)
    return changed, removed


def _compare_lists(schema: Type, old: list[Any], new: list[Any]) -> tuple[Node, Node]:
    changed: Node = {}
    removed: Node = {}
    before = {element_of(schema, item): item for item in old}
    after = {element_of(schema, item): item for item in new}
    for element, item in after.items():
        if element not in before:
            changed[element] = union(leaf(), covered(schema.item, item, containers=True))
        else:
            _put(changed, removed, element, compare(schema.item, before[element], item))
    for element, item in before.items():
        if element not in after:
            removed[element] = union(leaf(), covered(schema.item, item, containers=True))
    return changed, removed


def _put(changed: Node, removed: Node, element: str, found: tuple[Node, Node]) -> None:
    if found[0]:
        changed[element] = found[0]
    if found[1]:
        removed[element] = found[1]
