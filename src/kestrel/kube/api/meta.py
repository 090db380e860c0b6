"""Object metadata and conditions: the few fields every kind shares.

Small readers and writers over plain JSON objects, so that no caller spells `obj.get("metadata", {}).get(...)` again.
Times are RFC 3339 in UTC with a `Z`, whole seconds for Time and microseconds for MicroTime (api-conventions.md).
"""

import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

JSONObject = dict[str, Any]

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no digits that look like letters, so that no generated name spells a word."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

MAX_GENERATED_BASE = 58
"""Longest prefix kept of `generateName`: 63 less the five characters added."""


def metadata(obj: JSONObject) -> JSONObject:
    """The object's metadata, made empty when absent, so that writes to it stay."""
    found = obj.get("metadata")
    if not isinstance(found, dict):
        found = {}
        obj["metadata"] = found
    return found


def name(obj: Mapping[str, Any]) -> str:
    """The object's name, empty when it has none."""
    return str((obj.get("metadata") or {}).get("name") or "")


def namespace(obj: Mapping[str, Any]) -> str:
    """The object's namespace, empty for cluster-wide objects."""
    return str((obj.get("metadata") or {}).get("namespace") or "")


def uid(obj: Mapping[str, Any]) -> str:
    """The object's uid, empty before it is stored."""
    return str((obj.get("metadata") or {}).get("uid") or "")


def labels(obj: Mapping[str, Any]) -> dict[str, str]:
    """The object's labels, empty when it has none."""
    return (obj.get("metadata") or {}).get("labels") or {}


def annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    """The object's annotations, empty when it has none."""
    return (obj.get("metadata") or {}).get("annotations") or {}


def generated_name(base: str) -> str:
    """A name for `generateName`: the prefix and five random characters."""
    return base[:MAX_GENERATED_BASE] + "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


def time(moment: datetime) -> str:
    """A moment as a Kubernetes Time: `2026-01-02T03:04:05Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(moment: datetime) -> str:
    """A moment as a Kubernetes MicroTime: `2026-01-02T03:04:05.000006Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str | None) -> datetime | None:
    """The moment an RFC 3339 text names; None when it is absent or not a time."""
    if not text or not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def owner_reference(owner: JSONObject, *, controller: bool = True) -> JSONObject:
    """An ownerReferences entry that points at `owner`."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name(owner),
        "uid": uid(owner),
        "controller": controller,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Mapping[str, Any]) -> JSONObject | None:
    """The reference to the object's controller, if it has one."""
    for reference in (obj.get("metadata") or {}).get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def condition(obj: Mapping[str, Any], kind: str) -> JSONObject | None:
    """The status condition of that type."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind:
            return dict(entry)
    return None


def set_condition(conditions: list[JSONObject], new: JSONObject, now: str) -> bool:
    """Put `new` in place of the condition of its type; the transition time moves only when the status does.

    Changes `conditions` in place and tells whether anything but the probe time changed.
    """
    for index, old in enumerate(conditions):
        if old.get("type") != new["type"]:
            continue
        moved = old.get("status") != new.get("status")
        new.setdefault("lastTransitionTime", now if moved else old.get("lastTransitionTime", now))
        if old == new:
            return False
        conditions[index] = new
        return True
    new.setdefault("lastTransitionTime", now)
    conditions.append(new)
    return True


def last_applied(obj: Mapping[str, Any]) -> str | None:
    """What `kubectl apply` last sent, as the text it left in the annotation."""
    return annotations(obj).get(LAST_APPLIED)


def field(obj: Any, path: Iterable[str]) -> Any:
    """The value at a path of keys, or None where the path ends early."""
    for key in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(key)
    return obj
