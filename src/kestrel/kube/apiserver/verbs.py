"""The verbs on stored objects: create, get, list, update, patch, delete, watch. No HTTP here.

Both the REST routes and the in-process transport end here, so a controller and kubectl obey the same rules. A write
goes the same way for every kind: defaults, metadata, admission, validation, field ownership, store; what is
particular to a kind is in `strategies`, and what is particular to a cluster in `admission`.

A write is a guaranteed update: it reads, changes its own copy and stores it if nothing came between. When
the client named a resourceVersion the condition is its own and a mismatch is its Conflict; otherwise we try again.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from kestrel.base.clock import Clock, SystemClock
from kestrel.kube.api import meta, status
from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.apiserver.admission import Admission
from kestrel.kube.apiserver.call import Call
from kestrel.kube.apiserver.rules import Rules
from kestrel.kube.apiserver.selection import Listing, Seen, listing, watching
from kestrel.kube.apiserver.strategies import Strategy, strategy
from kestrel.kube.client import DeleteOptions, ListOptions
from kestrel.kube.store import Exists, Key, Missing, ObjectStore, Record, Stale
from kestrel.kube.store.store import encode

ATTEMPTS = 16
"""How often a write without a resourceVersion is tried against concurrent writers."""

_Batch = list[Seen]  # inside Verbs the name `list` is a verb
Edit = Callable[[JSONObject], JSONObject]
"""Makes the new object from the caller's own copy of the live one."""

_PROPAGATION = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
_SERVER_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did: `record` is the object as it was or still is, `gone` whether it is."""

    record: Record
    gone: bool


class Verbs:
    """The API without its wire."""

    def __init__(self, store: ObjectStore, rules: Rules, admission: Admission, *, clock: Clock | None = None) -> None:
        self.store = store
        self.rules = rules
        self.admission = admission
        self.clock = clock or SystemClock()

    # Reading

    def key(self, resource: Resource, namespace: str, name: str) -> Key:
        """Return where an object of the resource is stored."""
        return Key(self.collection(resource), namespace if resource.namespaced else "", name)

    def collection(self, resource: Resource) -> str:
        """Return the store's name for a resource."""
        group, _ = resource.storage_version
        return f"{resource.plural}.{group}" if group else resource.plural

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        """Return one object; raises NotFound."""
        record = self.store.get(self.key(resource, namespace, name))
        if record is None:
            raise status.not_found(resource, name)
        return record

    def list(self, resource: Resource, namespace: str, name: str, options: ListOptions) -> Listing:
        """Return the selected objects of a collection; raises InvalidArgument and Expired (410)."""
        view = partial(self.rules.presented, resource)
        return listing(self.store, self.collection(resource), resource, namespace, name, options, view)

    def watch(
        self, resource: Resource, namespace: str, name: str, options: ListOptions
    ) -> AsyncGenerator[_Batch, None]:
        """Yield what happens to the selected objects, in batches; see `selection.watching`."""
        view = partial(self.rules.presented, resource)
        return watching(self.store, self.collection(resource), resource, namespace, name, options, view)

    # Writing

    async def create(self, resource: Resource, namespace: str, obj: JSONObject, call: Call) -> Record:
        """Store a new object and return it; `obj` is given away. Raises AlreadyExists and InvalidArgument."""
        rule = strategy(resource)
        metadata = meta.metadata(obj)
        if metadata.get("resourceVersion"):
            raise status.bad_request("resourceVersion should not be set on objects to be created")
        generated = not metadata.get("name") and bool(metadata.get("generateName"))
        self.rules.default(resource, obj)
        self._prepare_new(resource, namespace, obj, rule, generated=generated)
        # Before admission: what the cluster adds is nobody's, so no manager takes it away by no longer naming it.
        self.rules.track(resource, None, obj, call, self.clock.now())
        await self.admission.create(resource, namespace, obj)
        self.rules.check(resource, obj)
        key = self.key(resource, namespace, str(metadata["name"]))
        if call.dry_run:
            if self.store.get(key) is not None:
                raise status.already_exists(resource, key.name)
            return _unstored(key, obj)
        try:
            record = await self.store.create(key, obj)
        except Exists:
            if generated:
                raise status.generate_name_conflict(resource, key.name) from None
            raise status.already_exists(resource, key.name) from None
        return record

    def _prepare_new(
        self, resource: Resource, namespace: str, obj: JSONObject, rule: Strategy, *, generated: bool
    ) -> None:
        metadata = meta.metadata(obj)
        _check_namespace(resource, namespace, metadata)
        if generated:
            metadata["name"] = meta.generated_name(str(metadata["generateName"]))
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
        for field in _SERVER_FIELDS:
            metadata.pop(field, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = meta.time(self.clock.now())
        rule.prepare_create(resource, obj)
        if not metadata.get("name"):
            raise status.invalid_object(
                resource, "", [status.required("metadata.name", "name or generateName is required")]
            )

    async def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        edit: Edit,
        call: Call,
        *,
        subresource: str = "",
    ) -> Record:
        """Change an object by `edit` and return it; raises NotFound, Conflict and InvalidArgument."""
        key = self.key(resource, namespace, name)
        for _ in range(ATTEMPTS):
            record = self.get(resource, namespace, name)
            new = edit(record.copy())
            mine = _own_precondition(resource, record, new)
            try:
                return await self._replace(resource, key, record, new, call, subresource)
            except Stale:
                if mine:
                    raise status.conflict(resource, name) from None
            except Missing:
                raise status.not_found(resource, name) from None
        raise status.conflict(resource, name)

    async def _replace(
        self, resource: Resource, key: Key, record: Record, new: JSONObject, call: Call, subresource: str
    ) -> Record:
        old = record.object
        rule = strategy(resource)
        metadata = meta.metadata(new)
        _check_name(resource, key, metadata)
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        for field in _SERVER_FIELDS:
            _keep(old["metadata"], metadata, field)
        metadata["resourceVersion"] = str(record.version)
        self.rules.default(resource, new)
        rule.prepare_update(resource, new, old, subresource)
        self.rules.check(resource, new, old, subresource)
        self.rules.track(resource, old, new, call, self.clock.now(), subresource)
        if call.dry_run:
            return _unstored(key, new)
        if rule.finished(new):
            gone = await self.store.delete(key, expected=record.version)
            return Record.of(key, gone.version, new)
        return await self.store.update(key, new, expected=record.version)

    # Deleting

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, call: Call
    ) -> Deleted:
        """Delete an object, or mark it for those who have to let go first. Raises NotFound and Conflict."""
        key = self.key(resource, namespace, name)
        for _ in range(ATTEMPTS):
            record = self.get(resource, namespace, name)
            _check_preconditions(resource, record, options)
            try:
                return await self._delete(resource, key, record, options, call)
            except Stale:
                continue
            except Missing:
                raise status.not_found(resource, name) from None
        raise status.conflict(resource, name)

    async def _delete(
        self, resource: Resource, key: Key, record: Record, options: DeleteOptions, call: Call
    ) -> Deleted:
        rule = strategy(resource)
        self.admission.delete(resource, key)
        old = record.object
        grace = rule.grace(old, options)
        finalizers = _finalizers(old, options.propagation)
        lingers = bool(finalizers) or grace > 0 or rule.holds(old)
        dry = call.dry_run or options.dry_run
        if not lingers:
            if dry:
                return Deleted(record, gone=True)
            return Deleted(await self.store.delete(key, expected=record.version), gone=True)
        marked = record.copy()
        begun = self._mark(marked, rule, grace)
        if finalizers != (old["metadata"].get("finalizers") or []):
            marked["metadata"]["finalizers"] = finalizers
        elif not begun:
            return Deleted(record, gone=False)
        if dry:
            return Deleted(_unstored(key, marked), gone=False)
        return Deleted(await self.store.update(key, marked, expected=record.version), gone=False)

    def _mark(self, obj: JSONObject, rule: Strategy, grace: int) -> bool:
        """Write the deletion into an object; False when it already says so."""
        metadata = obj["metadata"]
        since = meta.parse_time(metadata.get("deletionTimestamp"))
        if since is not None:
            known = int(metadata.get("deletionGracePeriodSeconds") or 0)
            if grace >= known:
                return False
            # A shorter grace counts from the first request (registry/rest/delete.go).
            metadata["deletionTimestamp"] = meta.time(since - timedelta(seconds=known - grace))
        else:
            metadata["deletionTimestamp"] = meta.time(self.clock.now() + timedelta(seconds=grace))
            if metadata.get("generation"):
                metadata["generation"] += 1
        metadata["deletionGracePeriodSeconds"] = grace
        rule.marked(obj)
        return True

    async def finalize(self, resource: Resource, namespace: str, name: str, edit: Edit, call: Call) -> Record:
        """Replace the finalizers of a namespace (`namespaces/finalize`)."""
        return await self.update(resource, namespace, name, edit, call, subresource="finalize")


def _finalizers(obj: JSONObject, propagation: str | None) -> list[str]:
    """Return the finalizers of a deleted object: the garbage collector sees to its dependents and removes them."""
    found = list(obj["metadata"].get("finalizers") or ())
    if propagation in (None, "") or obj["metadata"].get("deletionTimestamp"):
        return found
    found = [finalizer for finalizer in found if finalizer not in _PROPAGATION.values()]
    wanted = _PROPAGATION.get(str(propagation))
    return [*found, wanted] if wanted else found


def _unstored(key: Key, obj: JSONObject) -> Record:
    """Return the record of a dry run: the object as it would have been, without a new version."""
    return Record(key, int(obj["metadata"].get("resourceVersion") or 0), encode(obj))


def _check_namespace(resource: Resource, namespace: str, metadata: JSONObject) -> None:
    if not resource.namespaced:
        metadata.pop("namespace", None)
        return
    given = metadata.get("namespace") or namespace
    if given != namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if not namespace:
        raise status.bad_request("an empty namespace may not be set during creation")
    metadata["namespace"] = namespace


def _check_name(resource: Resource, key: Key, metadata: JSONObject) -> None:
    given = metadata.setdefault("name", key.name)
    if given != key.name:
        why = f"the name of the object ({given}) does not match the name on the URL ({key.name})"
        raise status.bad_request(why)
    if resource.namespaced:
        if metadata.setdefault("namespace", key.namespace) != key.namespace:
            raise status.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
    else:
        metadata.pop("namespace", None)


def _own_precondition(resource: Resource, record: Record, new: JSONObject) -> bool:
    """Check the resourceVersion and uid a client sent; True when it sent a version."""
    metadata = meta.metadata(new)
    uid, known = metadata.get("uid"), record.object["metadata"]["uid"]
    if uid and uid != known:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {known}"
        raise status.conflict(resource, record.key.name, why)
    version = metadata.get("resourceVersion")
    if version and version != str(record.version):
        raise status.conflict(resource, record.key.name)
    return bool(version)


def _check_preconditions(resource: Resource, record: Record, options: DeleteOptions) -> None:
    uid = record.object["metadata"]["uid"]
    if options.uid is not None and options.uid != uid:
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {uid}"
        raise status.conflict(resource, record.key.name, why)
    if options.resource_version is not None and options.resource_version != str(record.version):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {record.version}"
        )
        raise status.conflict(resource, record.key.name, why)


def _keep(old: JSONObject, new: JSONObject, field: str) -> None:
    """Make a field what it was: clients cannot change it."""
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)
