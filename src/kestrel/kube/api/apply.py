"""Server-side apply, and who owns which field (kubernetes.io "Server-Side Apply").

`apply` merges what a manager wants into the live object. A field that would change and belongs to another manager is a
conflict, unless forced; a field the manager applied before and no longer names is removed, unless someone else owns it
too. `update_managed_fields` does the book-keeping for every other kind of write, which takes over what it changes.

Ownership lives in `metadata.managedFields`: an entry per manager, operation, version and subresource, each with its set
of fields (`fieldsets`). Names, versions and the book-keeping itself are owned by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kestrel.kube.api import fieldsets, meta, status
from kestrel.kube.api.fieldsets import SELF, Node, element_of, is_leaf, leaf
from kestrel.kube.api.resource import JSONObject, Resource
from kestrel.kube.api.schemas import Type, load

APPLY, UPDATE = "Apply", "Update"
MAX_UPDATERS = 10
"""Entries of updating managers kept apart; the oldest beyond are folded into one."""
ANCIENT = "ancient-changes"
MAX_MANAGER_LENGTH = 128

_UNOWNED: Node = {
    "f:apiVersion": leaf(),
    "f:kind": leaf(),
    "f:metadata": {
        "f:" + name: leaf()
        for name in (
            *("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"),
            *("managedFields", "generateName", "deletionTimestamp", "deletionGracePeriodSeconds"),
        )
    },
}


@dataclass(frozen=True, slots=True)
class Manager:
    """Who owns fields: the key of an entry."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    def printed(self, time: str) -> str:
        """As conflict sentences show it."""
        text = f'"{self.name}"' + (f' with subresource "{self.subresource}"' if self.subresource else "")
        if self.operation == APPLY:
            return text
        return f"{text} using {self.api_version}" + (f" at {time}" if time else "")


@dataclass(frozen=True, slots=True)
class _Owned:
    fields: Node
    time: str


_Owners = dict[Manager, _Owned]


def apply(
    resource: Resource,
    live: JSONObject | None,
    applied: JSONObject,
    manager: str,
    force: bool = False,
    now: datetime | None = None,
    subresource: str = "",
) -> JSONObject:
    """The live object with `applied` merged in and the ownership written down; neither argument is changed.

    Raises Conflict with one cause per field of another manager that would change, unless `force`.
    """
    _check_manager(manager)
    schema = load().of(resource)
    applied = _without_nulls(applied)
    if (applied.get("metadata") or {}).get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")
    _check_keys(schema, applied, "")
    base = live if live is not None else {}
    owners = _read(base)
    me = Manager(manager, APPLY, resource.api_version, subresource)
    before = owners.pop(me, None) or _previous(owners, me)
    wanted = fieldsets.without(fieldsets.covered(schema, applied), _ignored(resource, subresource))
    merged: JSONObject = _merge(schema, base, applied)
    if before:
        merged = _prune(schema, merged, before.fields, wanted, owners)
    changed, removed = _changes(schema, base, merged, resource, subresource)
    if not force:
        _refuse_conflicts(owners, changed)
    owners = _taken(owners, changed, removed)
    time = meta.time(now) if now else ""
    same = before is not None and before.fields == wanted and not changed and not removed
    owners[me] = before if same and before is not None else _Owned(wanted, time)
    _write(merged, owners)
    return merged


def update_managed_fields(
    resource: Resource,
    live: JSONObject | None,
    new: JSONObject,
    manager: str,
    now: datetime | None = None,
    subresource: str = "",
) -> JSONObject:
    """Write into `new` (in place) who owns its fields, given that `manager` just changed it from `live`."""
    schema = load().of(resource)
    base = live if live is not None else {}
    given = (new.get("metadata") or {}).get("managedFields")
    owners = {} if _is_reset(given) else _read(new) or _read(base)
    changed, removed = _changes(schema, base, new, resource, subresource)
    me = Manager(manager[:MAX_MANAGER_LENGTH], UPDATE, resource.api_version, subresource)
    mine = owners.pop(me, None)
    if changed or removed:
        owners = _taken(owners, changed, removed)
        fields = fieldsets.union(fieldsets.difference(mine.fields if mine else {}, removed), changed)
        time = meta.time(now) if now else ""
        mine = _Owned(fields, time) if not mine or fields != mine.fields else mine
    if mine and mine.fields:
        owners[me] = mine
    _write(new, _folded(owners))
    return new


def _is_reset(entries: Any) -> bool:
    """A single empty entry is how a client asks to forget all owners."""
    return isinstance(entries, list) and len(entries) == 1 and not entries[0]


def _check_manager(manager: str) -> None:
    if not manager:
        raise status.bad_request(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )
    if len(manager) > MAX_MANAGER_LENGTH:
        error = status.too_long("fieldManager", MAX_MANAGER_LENGTH)
        raise status.bad_request(f'PatchOptions.meta.k8s.io "" is invalid: {error}')


def _previous(owners: _Owners, me: Manager) -> _Owned | None:
    """What the same manager applied in another version of the kind."""
    for other in list(owners):
        if replace(other, api_version=me.api_version) == me:
            return owners.pop(other)
    return None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(child) for key, child in value.items() if child is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _check_keys(schema: Type, value: Any, path: str) -> None:
    """Refuse items that cannot be told apart: without any key, or with the key of another."""
    if isinstance(value, dict):
        for key, child in value.items():
            inner = schema.child(key)
            if inner is not None and isinstance(child, dict | list):
                _check_keys(inner, child, f"{path}.{key}")
    elif isinstance(value, list) and not is_leaf(schema, value):
        seen = set()
        for index, item in enumerate(value):
            element = element_of(schema, item)
            if element == "k:{}":
                keys = ", ".join(schema.keys)
                raise status.bad_request(
                    f"{path}[{index}]: associative list with keys has an element that omits {keys}"
                )
            if element in seen:
                raise status.bad_request(f"{path}: duplicate entries for key {fieldsets.printed(element)}")
            seen.add(element)
            _check_keys(schema.item, item, f"{path}{fieldsets.printed(element)}")


# -- merging ----------------------------------------------------------------------------------------------------------


def _merge(schema: Type, live: Any, applied: Any) -> Any:
    """What is applied on top of what is there; atomic values are replaced."""
    if is_leaf(schema, applied) or type(live) is not type(applied):
        return deepcopy(applied)
    if isinstance(applied, dict):
        found = dict(live)
        for key, value in applied.items():
            inner = schema.child(key)
            if inner is None:
                continue
            found[key] = _merge(inner, live[key], value) if key in live else deepcopy(value)
        return found
    return _merge_items(schema, live, applied)


def _merge_items(schema: Type, live: list[Any], applied: list[Any]) -> list[Any]:
    """Applied items in their order; live ones between them where they were."""
    before = {element_of(schema, item): item for item in live}
    after = {element_of(schema, item): item for item in applied}
    rest = list(after)
    found: list[Any] = []

    def emit(element: str) -> None:
        item = after[element]
        found.append(_merge(schema.item, before[element], item) if element in before else deepcopy(item))

    for item in live:
        element = element_of(schema, item)
        if element not in after:
            found.append(item)
            continue
        while rest and element in rest:
            first = rest.pop(0)
            emit(first)
            if first == element:
                break
    for element in rest:
        emit(element)
    return found


def _prune(schema: Type, merged: JSONObject, last: Node, wanted: Node, owners: _Owners) -> JSONObject:
    """Take away what the manager applied last time, does not want now, and nobody else owns."""
    kept = wanted
    for owned in owners.values():
        kept = fieldsets.union(kept, owned.fields)
    gone = fieldsets.difference(last, kept)
    found = _removed(schema, merged, gone, kept) if gone else merged
    return found if isinstance(found, dict) else {}


_GONE = object()


def _removed(schema: Type, value: Any, gone: Node, kept: Node) -> Any:
    """The value less the fields in `gone`, or `_GONE` when nothing of it is left."""
    if SELF in gone and not kept:
        return _GONE
    if is_leaf(schema, value):
        return value
    found: Any
    if isinstance(value, dict):
        found = {}
        for key, child in value.items():
            inner, element = schema.child(key), f"f:{key}"
            if inner is not None and element in gone:
                child = _removed(inner, child, gone[element], kept.get(element, {}))
            if child is not _GONE:
                found[key] = child
    else:
        found = []
        for item in value:
            element = element_of(schema, item)
            if element in gone:
                item = _removed(schema.item, item, gone[element], kept.get(element, {}))
            if item is not _GONE:
                found.append(item)
    return found if found or not value or SELF in kept else _GONE


# -- owners -----------------------------------------------------------------------------------------------------------


def _ignored(resource: Resource, subresource: str) -> Node:
    """Fields that are nobody's in this request, because this path does not write them."""
    if subresource == "status":
        return {**_UNOWNED, "f:spec": leaf()}
    return {**_UNOWNED, "f:status": leaf()} if resource.has_status and not subresource else _UNOWNED


def _changes(schema: Type, old: JSONObject, new: JSONObject, resource: Resource, subresource: str) -> tuple[Node, Node]:
    ignored = _ignored(resource, subresource)
    changed, removed = fieldsets.compare(schema, old, new)
    return _rooted(fieldsets.without(changed, ignored)), _rooted(fieldsets.without(removed, ignored))


def _rooted(node: Node) -> Node:
    """Drop membership of metadata, spec and status themselves: every object has them."""
    found = {}
    for key, child in node.items():
        if SELF in child and len(child) > 1:
            child = {k: v for k, v in child.items() if k != SELF}
        if child:
            found[key] = child
    if set(found.get("f:metadata", ())) == {SELF}:
        del found["f:metadata"]
    return found


def _refuse_conflicts(owners: _Owners, changed: Node) -> None:
    found = []
    for manager, owned in sorted(owners.items(), key=lambda entry: (entry[0].name, entry[0].operation)):
        shared = fieldsets.intersection(owned.fields, changed)
        found += [(manager.printed(owned.time), path) for path in fieldsets.paths(shared)]
    if not found:
        return
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path} for who, path in found
    ]
    raise status.apply_conflict(causes, _conflict_sentence(found))


def _conflict_sentence(found: list[tuple[str, str]]) -> str:
    if len(found) == 1:
        return f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    by_manager: dict[str, list[str]] = {}
    for who, path in found:
        by_manager.setdefault(who, []).append(path)
    lines = []
    for who in sorted(by_manager):
        lines.append(f"conflicts with {who}:")
        lines += [f"- {path}" for path in by_manager[who]]
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)


def _taken(owners: _Owners, changed: Node, removed: Node) -> _Owners:
    """The other owners, less the fields that changed under them or are gone."""
    lost = fieldsets.union(changed, removed)
    found = {}
    for manager, owned in owners.items():
        fields = fieldsets.difference(owned.fields, lost)
        if fields:
            found[manager] = owned if fields == owned.fields else _Owned(fields, owned.time)
    return found


def _folded(owners: _Owners) -> _Owners:
    """Fold the oldest updating managers into one when there are too many."""
    updaters = sorted((m for m in owners if m.operation == UPDATE), key=lambda m: owners[m].time)
    spare = len(updaters) - MAX_UPDATERS
    if spare <= 0:
        return owners
    found = dict(owners)
    for manager in updaters[: spare + 1]:
        owned = found.pop(manager)
        bucket = Manager(ANCIENT, UPDATE, manager.api_version)
        old = found.get(bucket)
        found[bucket] = _Owned(fieldsets.union(old.fields, owned.fields) if old else owned.fields, owned.time)
    return found


def _read(obj: Mapping[str, Any]) -> _Owners:
    """The entries of managedFields; what is not one is passed over."""
    found: _Owners = {}
    for entry in (obj.get("metadata") or {}).get("managedFields") or ():
        if not isinstance(entry, dict) or entry.get("operation") not in (APPLY, UPDATE):
            continue
        manager = Manager(
            str(entry.get("manager") or ""),
            entry["operation"],
            str(entry.get("apiVersion") or ""),
            str(entry.get("subresource") or ""),
        )
        fields = fieldsets.from_wire(entry.get("fieldsV1"))
        if manager in found:
            fields = fieldsets.union(found[manager].fields, fields)
        found[manager] = _Owned(fields, str(entry.get("time") or ""))
    return found


def _write(obj: JSONObject, owners: _Owners) -> None:
    entries = []
    for manager, owned in owners.items():
        entry: JSONObject = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fieldsets.to_wire(owned.fields),
            "subresource": manager.subresource,
        }
        entries.append({key: value for key, value in entry.items() if value != ""})
    entries.sort(key=lambda entry: (entry["operation"], entry.get("time", ""), entry.get("manager", "")))
    metadata = dict(obj.get("metadata") or {})
    metadata.pop("managedFields", None)
    if entries:
        metadata["managedFields"] = entries
    obj["metadata"] = metadata
