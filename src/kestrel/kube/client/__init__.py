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
    is_expired,
)
from kestrel.kube.client.informer import Change, Informer
from kestrel.kube.client.recorder import Recorder
from kestrel.kube.client.workqueue import WorkQueue

__all__ = [
    "Client",
    "Informer",
    "Change",
    "WorkQueue",
    "Recorder",
    "is_expired",
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
