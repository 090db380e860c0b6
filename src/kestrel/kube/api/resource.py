"""What one row of the resource table says, and how rows are looked up.

A `Resource` is everything the server knows about a kind without knowing its fields; a `Scheme` is an immutable set of
rows with lookups by name. The rows themselves are in `scheme`. Values only: nothing here depends on a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

JSONObject = dict[str, Any]
"""An API object, or a part of one, as decoded from JSON."""

CRUD = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
"""The verbs of an ordinary stored resource, in the order discovery prints them."""


@dataclass(frozen=True, slots=True)
class GroupVersionKind:
    """The full name of a kind; `group` is empty for the core group."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version in the core group."""
        return api_version(self.group, self.version)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`.

    `source` is a field path that begins with a dot (`.status.phase`), or the word of a function in `tables.CELLS`.
    Columns with a priority above 0 are shown by `-o wide` only.
    """

    name: str
    source: str
    priority: int = 0
    type: str = "string"
    format: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Selectable:
    """A field that field selectors may name: its label, where it lives, and its value when absent."""

    label: str
    path: tuple[str, ...]
    default: str = ""


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object. The kind is what its bodies are; empty means the kind of the resource itself."""

    name: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One row: everything the server knows about a kind without knowing its fields."""

    group: str = ""
    version: str = "v1"
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    verbs: tuple[str, ...] = CRUD
    subresources: tuple[Subresource, ...] = ()
    columns: tuple[Column, ...] = ()
    selectable: tuple[Selectable, ...] = ()
    stored: bool = True
    """False for reviews and other answers that are computed and never kept."""
    storage: tuple[str, str] | None = None
    """Group and version in which objects are kept, when another row owns the storage."""
    list_kind: str = ""
    custom: bool = False
    """True for a custom resource: no strategic merge, schema from its definition."""

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return api_version(self.group, self.version)

    @property
    def gvk(self) -> GroupVersionKind:
        """Group, version and kind as one value."""
        return GroupVersionKind(self.group, self.version, self.kind)

    @property
    def group_resource(self) -> str:
        """`plural.group` as error sentences print it; the bare plural in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_kind(self) -> str:
        """`Kind.group` as error sentences print it; the bare kind in the core group."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def path_prefix(self) -> str:
        """`/api/v1` or `/apis/<group>/<version>`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def collection_kind(self) -> str:
        """The kind of its lists, `PodList` for Pod."""
        return self.list_kind or f"{self.kind}List"

    @property
    def storage_version(self) -> tuple[str, str]:
        """Group and version in which its objects are kept."""
        return self.storage or (self.group, self.version)

    def subresource(self, name: str) -> Subresource | None:
        """The row's subresource of that name."""
        return next((s for s in self.subresources if s.name == name), None)

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own path only."""
        return self.subresource("status") is not None

    def subresource_gvk(self, sub: Subresource) -> GroupVersionKind:
        """The kind of a subresource's bodies."""
        if not sub.kind:
            return self.gvk
        return GroupVersionKind(sub.group, sub.version or self.version, sub.kind)


def api_version(group: str, version: str) -> str:
    """`group/version`, or the bare version in the core group."""
    return f"{group}/{version}" if group else version


def split_api_version(text: str) -> tuple[str, str]:
    """Group and version of an `apiVersion`; the group of `v1` is empty."""
    group, _, version = text.rpartition("/")
    return group, version


class Scheme:
    """An immutable set of resources with lookups by name."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.resources: tuple[Resource, ...] = tuple(resources)
        self._by_plural = {(r.group, r.version, r.plural): r for r in self.resources}
        self._by_kind = {(r.group, r.version, r.kind): r for r in self.resources}

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.resources)

    def by_plural(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource a request path names, or None."""
        return self._by_plural.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        """The resource whose objects have this kind, or None."""
        return self._by_kind.get((group, version, kind))

    def of_object(self, obj: JSONObject) -> Resource | None:
        """The resource of an object, by its `apiVersion` and `kind`."""
        group, version = split_api_version(str(obj.get("apiVersion", "")))
        return self.by_kind(group, version, str(obj.get("kind", "")))

    def groups(self) -> dict[str, list[str]]:
        """Versions by group, in table order: the preferred version first. The core group is `""`."""
        found: dict[str, list[str]] = {}
        for resource in self.resources:
            versions = found.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        return found

    def of_group_version(self, group: str, version: str) -> list[Resource]:
        """The rows served under one group and version, in table order."""
        return [r for r in self.resources if (r.group, r.version) == (group, version)]

    def extended(self, more: Iterable[Resource]) -> Scheme:
        """A new scheme with further rows; a row of the same name replaces the old one."""
        rows = {(r.group, r.version, r.plural): r for r in self.resources}
        rows.update({(r.group, r.version, r.plural): r for r in more})
        return Scheme(rows.values())
