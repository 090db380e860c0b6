"""The two faces of an Event: core/v1, which is what is stored, and events.k8s.io/v1.

Both are the same object under other field names (kubernetes.io "Event v1 events.k8s.io"); nothing is lost either way.
"""

from __future__ import annotations

from kestrel.kube.api.resource import JSONObject

_NEW_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_OLD_NAMES = {new: old for old, new in _NEW_NAMES.items()}


def to_core(event: JSONObject) -> JSONObject:
    """An events.k8s.io/v1 Event as core/v1."""
    return _renamed(event, _OLD_NAMES, "v1")


def from_core(event: JSONObject) -> JSONObject:
    """A core/v1 Event as events.k8s.io/v1."""
    return _renamed(event, _NEW_NAMES, "events.k8s.io/v1")


def _renamed(event: JSONObject, names: dict[str, str], api_version: str) -> JSONObject:
    found = {names.get(key, key): value for key, value in event.items()}
    found["apiVersion"] = api_version
    return found
