"""Discovery: which groups, versions, resources and verbs there are, in the old form and the aggregated one.

All of it is derived from the table of resources, once, when the server is made. Clients from 1.26 on ask for the
aggregated form by Accept parameters and get everything with two requests; the reply must carry the same parameters.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from kestrel.kube.api.scheme import JSONObject, Resource, Scheme, Subresource, api_version

GROUP = "apidiscovery.k8s.io"
VERSIONS = ("v2", "v2beta1")


class Discovery:
    """The documents, encoded."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        groups = [group for group in scheme.groups() if group]
        self.core = _encode({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        self.groups = _encode({"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._group(g) for g in groups]})
        self._groups = {group: _encode({"apiVersion": "v1", **self._group(group)}) for group in groups}
        self._resources = {
            (group, version): _encode(_resource_list(group, version, scheme.of_group_version(group, version)))
            for group, versions in scheme.groups().items()
            for version in versions
        }
        self._aggregated = {
            (core, form): _encode(self._aggregate([""] if core else groups, form))
            for core in (True, False)
            for form in VERSIONS
        }

    def group(self, name: str) -> bytes | None:
        """Return the APIGroup of a name."""
        return self._groups.get(name)

    def resources(self, group: str, version: str) -> bytes | None:
        """Return the APIResourceList of a group and version."""
        return self._resources.get((group, version))

    def aggregated(self, form: str, *, core: bool) -> tuple[bytes, str]:
        """Return the APIGroupDiscoveryList for /api or /apis, and its media type."""
        return self._aggregated[core, form], f"application/json;g={GROUP};v={form};as=APIGroupDiscoveryList"

    def _group(self, name: str) -> JSONObject:
        versions = [
            {"groupVersion": api_version(name, version), "version": version} for version in self._scheme.groups()[name]
        ]
        return {"kind": "APIGroup", "name": name, "versions": versions, "preferredVersion": versions[0]}

    def _aggregate(self, groups: list[str], form: str) -> JSONObject:
        items = []
        for group in groups:
            versions = [
                {
                    "version": version,
                    "resources": [_aggregated_resource(r) for r in self._scheme.of_group_version(group, version)],
                    "freshness": "Current",
                }
                for version in self._scheme.groups().get(group, ())
            ]
            metadata: JSONObject = {"creationTimestamp": None} | ({"name": group} if group else {})
            items.append({"metadata": metadata, "versions": versions})
        return {"kind": "APIGroupDiscoveryList", "apiVersion": f"{GROUP}/{form}", "metadata": {}, "items": items}


def _encode(obj: Any) -> bytes:
    return msgspec.json.encode(obj)


def _resource_list(group: str, version: str, resources: list[Resource]) -> JSONObject:
    rows: list[JSONObject] = []
    for resource in resources:
        row: JSONObject = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            row["shortNames"] = list(resource.short_names)
        if resource.categories:
            row["categories"] = list(resource.categories)
        if resource.stored:
            text = f"{resource.group}/{resource.version}/{resource.kind}"
            row["storageVersionHash"] = hashlib.sha256(text.encode()).hexdigest()[:12]
        rows.append(row)
        rows.extend(_subresource_row(resource, sub) for sub in resource.subresources)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(group, version),
        "resources": rows,
    }


def _subresource_row(resource: Resource, sub: Subresource) -> JSONObject:
    kind = resource.subresource_gvk(sub)
    row: JSONObject = {
        "name": f"{resource.plural}/{sub.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind.kind,
        "verbs": list(sub.verbs),
    }
    if (kind.group, kind.version) != (resource.group, resource.version):
        row |= {"group": kind.group, "version": kind.version}
    return row


def _aggregated_resource(resource: Resource) -> JSONObject:
    row: JSONObject = {
        "resource": resource.plural,
        "responseKind": _kind(resource.group, resource.version, resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        row["shortNames"] = list(resource.short_names)
    if resource.categories:
        row["categories"] = list(resource.categories)
    if resource.subresources:
        row["subresources"] = [_aggregated_subresource(resource, sub) for sub in resource.subresources]
    return row


def _aggregated_subresource(resource: Resource, sub: Subresource) -> JSONObject:
    kind = resource.subresource_gvk(sub)
    return {
        "subresource": sub.name,
        "responseKind": _kind(kind.group, kind.version, kind.kind),
        "verbs": list(sub.verbs),
    }


def _kind(group: str, version: str, kind: str) -> JSONObject:
    return {"group": group, "version": version, "kind": kind}
