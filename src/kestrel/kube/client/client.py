"""How controllers, the scheduler and the kubelet see the cluster: verbs on plain JSON objects.

`Client` is what they hold. It speaks through a `Transport`, which is either the API server in the same process
(`kube.apiserver.inprocess`) or, in tests, anything with the same verbs. A resource is named as kubectl names it:
`pods`, `leases.coordination.k8s.io`. Every object handed out is the caller's own copy, except those of an
`Informer`, which are shared and must not be changed.

Errors are kinds of `kestrel.base.errors`: NotFound, AlreadyExists, Conflict (the object changed since it was
read), InvalidArgument (422 and 400); `is_expired` tells a resourceVersion that is too old (410).
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kestrel.base.errors import Conflict, KestrelError, NotFound

JSONObject = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a verb is about: a collection, an object or its subresource. An empty namespace means all, or none."""

    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """Selection and consistency of a list or watch; strings as in the query of a request."""

    labels: str = ""
    fields: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continuation: str = ""
    bookmarks: bool = False
    send_initial_events: bool | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How to write: `manager` is the field manager, `validation` is Strict, Warn or Ignore."""

    manager: str = ""
    dry_run: bool = False
    validation: str = "Ignore"
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """How to delete; `grace_seconds` None leaves it to the object, `uid` and `resource_version` must match if given."""

    grace_seconds: int | None = None
    propagation: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectList:
    """A list at one moment; `continuation` is set when there is more."""

    items: list[JSONObject]
    resource_version: str
    continuation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """ADDED, MODIFIED or DELETED with the whole object, or BOOKMARK with nothing but a resourceVersion."""

    type: str
    object: JSONObject = field(repr=False)

    @property
    def resource_version(self) -> str:
        """The version of the store this event is."""
        return str(self.object["metadata"]["resourceVersion"])


class Transport(Protocol):
    """The verbs of the API, as one identity. See `Client` for what they mean."""

    async def get(self, target: Target) -> JSONObject:
        """Return one object."""
        ...

    async def list(self, target: Target, options: ListOptions) -> ObjectList:
        """Return the objects of a collection."""
        ...

    async def create(self, target: Target, body: JSONObject, options: WriteOptions) -> JSONObject:
        """Create an object, or post to a subresource, and return the answer."""
        ...

    async def update(self, target: Target, body: JSONObject, options: WriteOptions) -> JSONObject:
        """Replace an object (or its subresource) and return it."""
        ...

    async def patch(self, target: Target, patch: object, content_type: str, options: WriteOptions) -> JSONObject:
        """Patch an object (or its subresource) and return it."""
        ...

    async def delete(self, target: Target, options: DeleteOptions) -> JSONObject:
        """Delete an object; returns it when it lingers, else a Status."""
        ...

    def watch(self, target: Target, options: ListOptions) -> AsyncGenerator[WatchEvent, None]:
        """Iterate changes after `options.resource_version`; raises when that is too old (`is_expired`)."""
        ...


class Client:
    """The cluster, as the component called `manager` sees it."""

    def __init__(self, transport: Transport, *, manager: str = "kestrel") -> None:
        self._transport = transport
        self.manager = manager

    def _options(self) -> WriteOptions:
        return WriteOptions(manager=self.manager)

    async def get(self, resource: str, name: str, namespace: str = "") -> JSONObject:
        """Return one object; raises NotFound."""
        return await self._transport.get(Target(resource=resource, namespace=namespace, name=name))

    async def find(self, resource: str, name: str, namespace: str = "") -> JSONObject | None:
        """Return one object, or None when there is none."""
        try:
            return await self.get(resource, name, namespace)
        except NotFound:
            return None

    async def list(
        self,
        resource: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        resource_version: str = "",
    ) -> ObjectList:
        """Return all objects that the label and field selectors allow."""
        options = ListOptions(labels=labels, fields=fields, resource_version=resource_version)
        return await self._transport.list(Target(resource=resource, namespace=namespace), options)

    async def create(self, resource: str, body: JSONObject, namespace: str = "") -> JSONObject:
        """Create an object (namespace from its metadata when not given); raises AlreadyExists."""
        namespace = namespace or _namespace(body)
        return await self._transport.create(Target(resource=resource, namespace=namespace), body, self._options())

    async def update(self, resource: str, body: JSONObject, *, subresource: str = "") -> JSONObject:
        """Replace an object (or its subresource); raises Conflict when its resourceVersion is not the newest."""
        return await self._transport.update(_target(resource, body, subresource), body, self._options())

    async def update_status(self, resource: str, body: JSONObject) -> JSONObject:
        """Replace the status of an object; everything else in `body` is ignored."""
        return await self._transport.update(_target(resource, body, "status"), body, self._options())

    async def patch(
        self,
        resource: str,
        name: str,
        patch: object,
        namespace: str = "",
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        force: bool = False,
    ) -> JSONObject:
        """Apply a patch of the given content type and return the new object."""
        target = Target(resource=resource, namespace=namespace, name=name, subresource=subresource)
        options = WriteOptions(manager=self.manager, force=force)
        return await self._transport.patch(target, patch, content_type, options)

    async def patch_status(self, resource: str, name: str, status: JSONObject, namespace: str = "") -> JSONObject:
        """Merge into the status of an object (RFC 7386: null removes, lists are replaced)."""
        return await self.patch(resource, name, {"status": status}, namespace, subresource="status")

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> JSONObject:
        """Delete an object; a pod with grace left stays, marked, until the kubelet deletes it with grace 0."""
        options = DeleteOptions(
            grace_seconds=grace_seconds, propagation=propagation, uid=uid, resource_version=resource_version
        )
        return await self._transport.delete(Target(resource=resource, namespace=namespace, name=name), options)

    def watch(
        self,
        resource: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        resource_version: str = "",
        bookmarks: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Iterate changes that come after `resource_version`; without one, first what exists and then changes.

        Endless; close the iterator (`aclose`) or cancel the task that reads it. Raises an error of
        which `is_expired` is true when the version is too old or the reader fell too far behind: list again.
        """
        options = ListOptions(labels=labels, fields=fields, resource_version=resource_version, bookmarks=bookmarks)
        return self._transport.watch(Target(resource=resource, namespace=namespace), options)

    async def change(
        self, resource: str, name: str, namespace: str, edit: "Edit", *, subresource: str = "", attempts: int = 10
    ) -> JSONObject | None:
        """Read, let `edit` change the object in place, write; again on a conflict.

        `edit` returns False to say that nothing needs writing. Returns the object as it now is, None if it is gone.
        """
        for attempt in range(attempts):
            body = await self.find(resource, name, namespace)
            if body is None or edit(body) is False:
                return body
            try:
                return await self._transport.update(_target(resource, body, subresource), body, self._options())
            except NotFound:
                return None
            except Conflict:
                if attempt == attempts - 1:
                    raise
        raise AssertionError

    async def bind(self, namespace: str, name: str, node: str, *, uid: str = "") -> None:
        """Give a pod its node (`pods/binding`); raises Conflict when it has one."""
        metadata = {"name": name, "namespace": namespace} | ({"uid": uid} if uid else {})
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        where = Target(resource="pods", namespace=namespace, name=name, subresource="binding")
        await self._transport.create(where, body, self._options())

    async def create_token(
        self,
        namespace: str,
        service_account: str,
        *,
        audiences: tuple[str, ...] = (),
        expiration_seconds: int = 3607,
        pod: Mapping[str, Any] | None = None,
    ) -> JSONObject:
        """Return a TokenRequest whose status has `token` and `expirationTimestamp`, bound to `pod` if given."""
        spec: JSONObject = {"audiences": list(audiences), "expirationSeconds": expiration_seconds}
        if pod is not None:
            metadata = pod["metadata"]
            reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
            spec["boundObjectRef"] = reference
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        where = Target(resource="serviceaccounts", namespace=namespace, name=service_account, subresource="token")
        return await self._transport.create(where, body, self._options())


class Edit(Protocol):
    """A change made in place to a copy of the object."""

    def __call__(self, body: JSONObject, /) -> "bool | None":
        """Change `body`; return False when there is nothing to write."""
        ...


def is_expired(error: BaseException) -> bool:
    """Whether an error says that a resourceVersion is too old (410): the caller has to list again."""
    status = error.context.get("status") if isinstance(error, KestrelError) else None
    return isinstance(status, dict) and status.get("code") == 410


def _namespace(body: JSONObject) -> str:
    return str(body.get("metadata", {}).get("namespace", ""))


def _target(resource: str, body: JSONObject, subresource: str = "") -> Target:
    metadata = body["metadata"]
    return Target(resource=resource, namespace=_namespace(body), name=str(metadata["name"]), subresource=subresource)
