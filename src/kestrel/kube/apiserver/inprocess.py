"""The transport of the platform's own parts: the verbs of the API, called without HTTP.

The same admission, validation and conflicts as over the wire; only encoding and authentication are left out. Objects
that come back from reads and writes are the caller's own copies; those of lists and watches are the store's shared ones
(an informer keeps them), which nobody may change.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from kestrel.kube.api import status
from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.apiserver.call import INTERNAL, Call, Caller
from kestrel.kube.apiserver.patching import patched
from kestrel.kube.apiserver.selection import bookmark
from kestrel.kube.apiserver.subresources import Subresources
from kestrel.kube.apiserver.verbs import Verbs
from kestrel.kube.client import DeleteOptions, ListOptions, ObjectList, Target, WatchEvent, WriteOptions
from kestrel.kube.store.store import decode, encode


class InProcess:
    """`kube.client.Transport` over the API server in the same process."""

    def __init__(self, verbs: Verbs, subresources: Subresources, caller: Caller = INTERNAL) -> None:
        self._verbs = verbs
        self._subresources = subresources
        self._caller = caller

    def _resource(self, name: str) -> Resource:
        plural, _, group = name.partition(".")
        for resource in self._verbs.rules.scheme:
            if (resource.plural, resource.group) == (plural, group):
                return resource
        raise status.no_such_path()

    def _call(self, options: WriteOptions) -> Call:
        return Call(
            caller=self._caller,
            manager=options.manager,
            dry_run=options.dry_run,
            validation=options.validation,
            force=options.force,
        )

    async def get(self, target: Target) -> JSONObject:
        """Return one object."""
        return self._verbs.get(self._resource(target.resource), target.namespace, target.name).copy()

    async def list(self, target: Target, options: ListOptions) -> ObjectList:
        """Return the objects of a collection, shared: do not change them."""
        resource = self._resource(target.resource)
        found = self._verbs.list(resource, target.namespace, target.name, options)
        items = [record.object for record in found.page.records]
        return ObjectList(items=items, resource_version=str(found.page.version), continuation=found.continuation)

    async def create(self, target: Target, body: JSONObject, options: WriteOptions) -> JSONObject:
        """Create an object, or post to a subresource."""
        resource = self._resource(target.resource)
        own = _own(body)
        if target.subresource:
            return await self._subresources.post(
                resource, target.subresource, target.namespace, target.name, own, self._call(options)
            )
        record = await self._verbs.create(resource, target.namespace, own, self._call(options))
        return record.copy()

    async def update(self, target: Target, body: JSONObject, options: WriteOptions) -> JSONObject:
        """Replace an object or its subresource."""
        resource = self._resource(target.resource)
        record = await self._verbs.update(
            resource,
            target.namespace,
            target.name,
            lambda _: _own(body),
            self._call(options),
            subresource=target.subresource,
        )
        return record.copy()

    async def patch(self, target: Target, patch: object, content_type: str, options: WriteOptions) -> JSONObject:
        """Patch an object or its subresource."""
        record, _ = await patched(
            self._verbs,
            self._resource(target.resource),
            target.namespace,
            target.name,
            patch,
            content_type,
            self._call(options),
            subresource=target.subresource,
        )
        return record.copy()

    async def delete(self, target: Target, options: DeleteOptions) -> JSONObject:
        """Delete an object; returns it when it lingers, else a Status."""
        resource = self._resource(target.resource)
        found = await self._verbs.delete(resource, target.namespace, target.name, options, Call(caller=self._caller))
        return status.success() if found.gone else found.record.copy()

    async def watch(self, target: Target, options: ListOptions) -> AsyncGenerator[WatchEvent, None]:
        """Iterate changes; the objects are shared, do not change them."""
        resource = self._resource(target.resource)
        batches = self._verbs.watch(resource, target.namespace, target.name, options)
        async with aclosing(batches):
            async for batch in batches:
                for seen in batch:
                    obj = bookmark(resource, seen) if seen.record is None else seen.record.object
                    yield WatchEvent(type=seen.type, object=obj)


def _own(body: JSONObject) -> JSONObject:
    """Return a copy that a verb may keep and change."""
    return decode(encode(body))
