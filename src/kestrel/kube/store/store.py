"""What the API server keeps its objects in: the `ObjectStore` Protocol and its values.

An object is known by `Key` (resource, namespace, name), where resource is `plural.group` of the storage version. The
store knows JSON and metadata, and nothing else of Kubernetes.

Lifecycle, the same for every implementation (`kestrel.testing.object_store_suite`):
- One counter for everything: each change gets the next resourceVersion, also a delete. It never goes back, not even
  over a restart.
- `create`, `update` and `delete` are on disk when they return, except for resources the store was told are
  volatile (events): those live in memory and are gone after a restart.
- Reads see what has been written durably, in the order of resourceVersions.
- A watch from version N gives every change after N exactly once, in order, or is refused as expired: only so many
  changes are remembered, none over a restart.
- Values handed out (`Record`) are shared and never change; a change is a new Record. `Record.object` is one shared
  parsed copy and must not be written to; `Record.copy()` is the caller's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

JSONObject = dict[str, Any]

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class _Meta(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct):
    metadata: _Meta


_decode_labels = msgspec.json.Decoder(_Labelled).decode


class Key(NamedTuple):
    """Where an object lives; `namespace` is empty for cluster-wide objects. Sorts as lists are ordered."""

    resource: str
    namespace: str
    name: str


class Record:
    """One object at one version: canonical JSON bytes, and what is looked at often."""

    __slots__ = ("_labels", "_object", "data", "key", "slot", "version")

    def __init__(self, key: Key, version: int, data: bytes, obj: JSONObject | None = None) -> None:
        self.key = key
        self.version = version
        self.data = data
        self.slot: object = None
        """A place for the printer to keep what it made of this version."""
        self._object = obj
        self._labels: dict[str, str] | None = None

    @classmethod
    def of(cls, key: Key, version: int, obj: JSONObject) -> Record:
        """Encode an object at a version; `obj` gets the version written into it and is given away."""
        obj["metadata"]["resourceVersion"] = str(version)
        return cls(key, version, _encode(obj))

    @property
    def object(self) -> JSONObject:
        """The object, parsed once and shared: do not change it."""
        if self._object is None:
            self._object = _decode(self.data)
        return self._object

    @property
    def labels(self) -> dict[str, str]:
        """The object's labels, without parsing the rest."""
        if self._labels is None:
            self._labels = _decode_labels(self.data).metadata.labels or {}
        return self._labels

    def copy(self) -> JSONObject:
        """Return the object as the caller's own."""
        found: JSONObject = _decode(self.data)
        return found


Match = Callable[[Record], bool]
"""A selector: whether a record is wanted."""


class Change:
    """One change in the store: ADDED, MODIFIED or DELETED. `before` is None for ADDED.

    For DELETED `record` is the object as it last was, with the version of the deletion.
    """

    __slots__ = ("before", "record", "type")

    def __init__(self, type: str, record: Record, before: Record | None) -> None:  # noqa: A002 - the field's word
        self.type = type
        self.record = record
        self.before = before

    @property
    def version(self) -> int:
        """The resourceVersion this change made."""
        return self.record.version

    def seen_by(self, match: Match | None) -> str | None:
        """Return the type as a watcher with this selector sees it; None when it does not concern it.

        An object that begins to match is ADDED for that watcher, one that ceases to match DELETED.
        """
        if match is None:
            return self.type
        now = self.type != "DELETED" and match(self.record)
        then = self.before is not None and match(self.before)
        if now:
            return "MODIFIED" if then else "ADDED"
        return "DELETED" if then else None

    def shown(self, seen: str) -> Record:
        """Return the record to show with a type from `seen_by`.

        To a watcher whose selector an object has left, the object is shown as it last matched.
        """
        if seen == "DELETED" and self.type != "DELETED" and self.before is not None:
            return Record.of(self.record.key, self.version, self.before.copy())
        return self.record


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list, all at one `version`; `rest` is how many are left, `after` the key to go on from."""

    records: list[Record]
    version: int
    rest: int = 0
    after: Key | None = None


class Watch(Protocol):
    """An open watch; close it. Iterating gives changes; see `batch`."""

    async def batch(self) -> list[tuple[str, Change]]:
        """Return the changes that have come, as (type as seen, change), waiting for at least one.

        Raises Expired (an error whose Status says 410) when the reader was too slow and changes were dropped.
        """
        ...

    @property
    def version(self) -> int:
        """Everything up to this version has been handed out: what a bookmark may say."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class ObjectStore(Protocol):
    """Objects by key. See the module for what holds always."""

    @property
    def version(self) -> int:
        """The newest resourceVersion that reads see."""
        ...

    def get(self, key: Key) -> Record | None:
        """Return the object, None when there is none."""
        ...

    def list(
        self,
        resource: str,
        namespace: str = "",
        *,
        match: Match | None = None,
        limit: int = 0,
        after: Key | None = None,
        version: int | None = None,
    ) -> Page:
        """Return objects in key order; all namespaces when it is empty.

        `version` asks for the state at that moment, `after` goes on behind a key. Raises Expired when the moment is
        too long ago to be known.
        """
        ...

    async def create(self, key: Key, obj: JSONObject) -> Record:
        """Store a new object; raises Exists."""
        ...

    async def update(self, key: Key, obj: JSONObject, *, expected: int) -> Record:
        """Replace an object that still is at version `expected`; raises Stale or Missing.

        Returns the old record when nothing but the resourceVersion differs: nothing is written then.
        """
        ...

    async def delete(self, key: Key, *, expected: int) -> Record:
        """Remove an object that still is at version `expected`; raises Stale or Missing. Returns its last state."""
        ...

    def watch(
        self, resource: str, namespace: str = "", *, since: int, name: str = "", match: Match | None = None
    ) -> Watch:
        """Listen to changes after version `since`; raises Expired when they are no longer all known."""
        ...


class Exists(Exception):  # noqa: N818 - an answer of the store, not a failure
    """The key is taken."""


class Missing(Exception):  # noqa: N818
    """There is no object of that key."""


class Stale(Exception):  # noqa: N818
    """The object is at another version than expected."""


def encode(obj: JSONObject) -> bytes:
    """Return canonical JSON: keys sorted, no blanks, UTF-8."""
    return _encode(obj)


def decode(data: bytes) -> JSONObject:
    """Parse JSON that this module wrote."""
    found: JSONObject = _decode(data)
    return found
