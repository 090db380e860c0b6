"""How the parts of the platform see the cluster: client, informer, work queue, events."""

from kestrel.kube.client.client import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_MERGE_PATCH,
    Client,
    DeleteOptions,
    JSONObject,
    ListOptions,
    ObjectList,
    Target,
    Transport,
    WatchEvent,
    WriteOptions,
)

__all__ = [
    "Client",
    "Transport",
    "Target",
    "ListOptions",
    "WriteOptions",
    "DeleteOptions",
    "ObjectList",
    "WatchEvent",
    "JSONObject",
    "JSON_PATCH",
    "MERGE_PATCH",
    "STRATEGIC_MERGE_PATCH",
    "APPLY_PATCH",
]
