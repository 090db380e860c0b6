"""Objects by key, resourceVersion and watch: what etcd is to others."""

from kestrel.kube.store.sqlite import SqliteStore
from kestrel.kube.store.store import Change, Exists, Key, Match, Missing, ObjectStore, Page, Record, Stale, Watch

__all__ = [
    "ObjectStore",
    "SqliteStore",
    "Key",
    "Record",
    "Change",
    "Match",
    "Page",
    "Watch",
    "Exists",
    "Missing",
    "Stale",
]
