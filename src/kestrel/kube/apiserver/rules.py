"""What `kube.api` knows of kinds, as the verbs ask for it.

One object joins the pure parts (defaults, validation, patches, field ownership) with the table and the schemas they
work on, so that a verb names the resource and nothing else.
"""

from __future__ import annotations

from datetime import datetime

from kestrel.kube.api import apply, defaults, events, fields, meta, patch, status, validation
from kestrel.kube.api.schemas import Schemas
from kestrel.kube.api.schemas import load as load_schemas
from kestrel.kube.api.scheme import BUILTIN, JSONObject, Resource, Scheme
from kestrel.kube.apiserver.call import STRICT, WARN, Call
from kestrel.kube.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from kestrel.kube.store.store import decode, encode

PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH)


class Rules:
    """The table of resources and everything derived from it."""

    def __init__(self, scheme: Scheme = BUILTIN, schemas: Schemas | None = None) -> None:
        self.scheme = scheme
        self.schemas = schemas or load_schemas()

    def stored_as(self, resource: Resource) -> Resource:
        """Return the row that owns the storage of a resource."""
        group, version = resource.storage_version
        return self.scheme.by_plural(group, version, resource.plural) or resource

    def check_fields(self, resource: Resource, obj: JSONObject, call: Call, repeated: list[str]) -> None:
        """Refuse or report fields the kind does not have, and those that the decoder met twice."""
        if call.validation not in (STRICT, WARN):
            return
        problems = [*repeated, *(f'unknown field "{path}"' for path in fields.unknown(resource, obj))]
        if not problems:
            return
        if call.validation == WARN:
            for problem in problems:
                call.warn(problem)
            return
        kind = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
        raise status.bad_request(f"{kind}: strict decoding error: {', '.join(problems)}")

    def default(self, resource: Resource, obj: JSONObject) -> None:
        """Make an object what its kind can hold and fill in what was left out, in place."""
        fields.read(resource, obj)
        defaults.apply(resource, obj)

    def check(self, resource: Resource, obj: JSONObject, old: JSONObject | None = None, subresource: str = "") -> None:
        """Raise InvalidArgument (422) with every field that is wrong."""
        errors = validation.validate(resource, obj, old, subresource)
        if errors:
            raise status.invalid_object(resource, meta.name(obj), errors)

    def patch(self, resource: Resource, live: JSONObject, patch_body: object, content_type: str) -> JSONObject:
        """Return the object that a JSON, merge or strategic merge patch makes of the live one."""
        if content_type == JSON_PATCH:
            found = patch.json_patch(live, patch_body)
        elif content_type == MERGE_PATCH:
            found = patch.merge_patch(live, patch_body)
        else:
            found = patch.strategic_merge_patch(self.schemas, resource, live, patch_body)
        if not isinstance(found, dict):
            raise status.bad_request("the patched object is not an object")
        return found

    def apply(
        self,
        resource: Resource,
        live: JSONObject | None,
        wanted: JSONObject,
        call: Call,
        now: datetime,
        subresource: str,
    ) -> JSONObject:
        """Return the object that a server-side apply makes of the live one, field owners recorded."""
        fields.read(resource, wanted)
        return apply.apply(resource, live, wanted, call.manager, call.force, now, subresource)

    def track(
        self,
        resource: Resource,
        old: JSONObject | None,
        new: JSONObject,
        call: Call,
        now: datetime,
        subresource: str = "",
    ) -> None:
        """Record in managedFields which fields this write changed."""
        if call.applied:
            return
        apply.update_managed_fields(resource, old, new, call.manager, now, subresource)

    def kept(self, resource: Resource, obj: JSONObject) -> JSONObject:
        """Return an object in the form its storage has."""
        return obj if resource.storage is None else events.to_core(obj)

    def presented(self, resource: Resource, obj: JSONObject) -> JSONObject:
        """Return a stored object in the form of the row it is asked for by."""
        return obj if resource.storage is None else events.from_core(obj)

    def copied(self, obj: JSONObject) -> JSONObject:
        """Return a deep copy."""
        return decode(encode(obj))
