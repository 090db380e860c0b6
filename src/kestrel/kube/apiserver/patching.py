"""The patch verb: four kinds of patch over one guaranteed update.

JSON, merge and strategic merge patches change what is there. An apply patch (server-side apply) says what its manager
wants to be there: it creates what is missing and raises a conflict when another manager owns a field, unless forced.
"""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import meta, status
from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.apiserver.call import Call
from kestrel.kube.apiserver.rules import PATCHES
from kestrel.kube.apiserver.verbs import Verbs
from kestrel.kube.client import APPLY_PATCH, STRATEGIC_MERGE_PATCH
from kestrel.kube.store import Record


async def patched(
    verbs: Verbs,
    resource: Resource,
    namespace: str,
    name: str,
    patch: object,
    content_type: str,
    call: Call,
    *,
    subresource: str = "",
) -> tuple[Record, bool]:
    """Apply a patch; returns the object and whether it was created. Raises NotFound, Conflict and InvalidArgument."""
    if content_type not in PATCHES or (content_type == STRATEGIC_MERGE_PATCH and resource.custom):
        raise status.unsupported_media_type(
            kind for kind in PATCHES if not (resource.custom and kind == STRATEGIC_MERGE_PATCH)
        )
    stored = verbs.rules.stored_as(resource)
    if content_type == APPLY_PATCH:
        return await _applied(verbs, resource, namespace, name, patch, call, subresource)

    def edit(live: JSONObject) -> JSONObject:
        version = live["metadata"]["resourceVersion"]
        new = verbs.rules.patch(resource, verbs.rules.presented(resource, live), patch, content_type)
        verbs.rules.check_fields(resource, new, call, [])
        return _without_version(verbs.rules.kept(resource, new), version)

    record = await verbs.update(stored, namespace, name, edit, call, subresource=subresource)
    return record, False


def _without_version(obj: JSONObject, live: str) -> JSONObject:
    """Take the live resourceVersion out again: only one that the patch itself names is a precondition."""
    metadata = meta.metadata(obj)
    if metadata.get("resourceVersion") == live:
        obj["metadata"] = {key: value for key, value in metadata.items() if key != "resourceVersion"}
    return obj


async def _applied(
    verbs: Verbs, resource: Resource, namespace: str, name: str, patch: object, call: Call, subresource: str
) -> tuple[Record, bool]:
    if not isinstance(patch, dict):
        raise status.bad_request("error decoding YAML: an apply patch must be an object")
    if not call.manager:
        message = 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        cause = {
            "reason": "FieldValueRequired",
            "message": "Required value: is required for apply patch",
            "field": "fieldManager",
        }
        details = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause]}
        raise InvalidArgument(message, status=status.status(422, "Invalid", message, details))
    call.applied = True
    _check_apply(resource, name, patch)
    verbs.rules.check_fields(resource, patch, call, [])
    if verbs.store.get(verbs.key(resource, namespace, name)) is None:
        if subresource:
            raise status.not_found(resource, name)
        return await _created(verbs, resource, namespace, name, patch, call), True

    def edit(live: JSONObject) -> JSONObject:
        version = live["metadata"]["resourceVersion"]
        return _without_version(verbs.rules.apply(resource, live, patch, call, verbs.clock.now(), subresource), version)

    return await verbs.update(resource, namespace, name, edit, call, subresource=subresource), False


async def _created(
    verbs: Verbs, resource: Resource, namespace: str, name: str, patch: JSONObject, call: Call
) -> Record:
    if meta.uid(patch):
        raise status.conflict(
            resource, name, "uid mismatch: the provided object specified uid, and no existing object was found"
        )
    obj = verbs.rules.apply(resource, None, patch, call, verbs.clock.now(), "")
    return await verbs.create(resource, namespace, obj, call)


def _check_apply(resource: Resource, name: str, patch: JSONObject) -> None:
    if patch.get("kind") != resource.kind or patch.get("apiVersion") != resource.api_version:
        given = f"{patch.get('apiVersion')}, Kind={patch.get('kind')}"
        raise status.bad_request(
            f"the API version in the data ({given}) does not match the expected API version "
            f"({resource.api_version}, Kind={resource.kind})"
        )
    if meta.metadata(patch).get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")
    given = meta.metadata(patch).setdefault("name", name)
    if given != name:
        raise status.bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
