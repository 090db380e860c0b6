"""Defaults: what a field means when a client leaves it out, written into the object as the API server stores it.

Schemas carry no defaults for these kinds, so they are written here by hand, one function per kind, after the field
descriptions ("Defaults to ..."). A default is never a decision of the cluster: service accounts, tolerations and
priorities belong to admission. Applying defaults twice changes nothing.

Objects are changed in place and have been through `fields.read`, so that values have the right types.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

from kestrel.kube.api.resource import JSONObject, Resource

FILE_MODE = 0o644
"""Mode of files in secret, configMap, downwardAPI and projected volumes."""

TOKEN_SECONDS = 3600
"""Life of a service account token for which no other is asked."""

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FILE_VOLUMES = ("secret", "configMap", "downwardAPI", "projected")
CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


def apply(resource: Resource, obj: JSONObject) -> JSONObject:
    """Fill in what the client left out; returns the same object."""
    fill = _KINDS.get((resource.group, resource.kind))
    if fill is not None:
        fill(obj)
    return obj


def pod_spec(spec: JSONObject) -> None:
    """Fill in a pod's spec, also that of a template."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    _mirror_service_account(spec)
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("enableServiceLinks", True)
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for entry in containers(spec):
        _container(entry, host_network=bool(spec.get("hostNetwork")))


def containers(spec: JSONObject) -> Iterator[JSONObject]:
    """Every container of a pod: init, ordinary and ephemeral."""
    for key in CONTAINER_LISTS:
        yield from spec.get(key) or ()


def _mirror_service_account(spec: JSONObject) -> None:
    """`serviceAccount` is the old name of `serviceAccountName`; both are kept equal and the new one wins."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def _container(entry: JSONObject, *, host_network: bool) -> None:
    entry.setdefault("terminationMessagePath", "/dev/termination-log")
    entry.setdefault("terminationMessagePolicy", "File")
    if not entry.get("imagePullPolicy"):
        entry["imagePullPolicy"] = pull_policy(str(entry.get("image") or ""))
    _requests(entry)
    for port in entry.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network and not port.get("hostPort") and port.get("containerPort"):
            port["hostPort"] = port["containerPort"]
    for variable in entry.get("env") or ():
        _field_reference((variable.get("valueFrom") or {}).get("fieldRef"))
    for name in _PROBES:
        _probe(entry.get(name))
    for handler in (entry.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http_get(handler.get("httpGet"))


def pull_policy(image: str) -> str:
    """Always for `:latest` and for no tag at all, else IfNotPresent; a digest pins the image."""
    name, at, _ = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if name and not at and tag in ("", "latest") else "IfNotPresent"


def _requests(entry: JSONObject) -> None:
    """A limit without a request is also the request."""
    resources = entry.get("resources")
    if not resources:
        entry["resources"] = {}
        return
    limits = resources.get("limits")
    if limits:
        requests = resources.get("requests") or {}
        resources["requests"] = {**requests, **{k: v for k, v in limits.items() if k not in requests}}


def _probe(probe: JSONObject | None) -> None:
    if probe is None:
        return
    for field, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(field):
            probe[field] = value
    _http_get(probe.get("httpGet"))
    if isinstance(probe.get("grpc"), dict):
        probe["grpc"].setdefault("service", "")


def _http_get(action: JSONObject | None) -> None:
    if action is not None:
        action["path"] = action.get("path") or "/"
        action["scheme"] = action.get("scheme") or "HTTP"


def _field_reference(reference: JSONObject | None) -> None:
    if reference is not None:
        reference.setdefault("apiVersion", "v1")


def _volume(volume: JSONObject) -> None:
    if len(volume) <= 1 and "name" in volume:
        volume["emptyDir"] = {}
    for kind in _FILE_VOLUMES:
        source = volume.get(kind)
        if source is not None:
            source.setdefault("defaultMode", FILE_MODE)
            _volume_items(source, kind)
    _persistent_source(volume)
    if volume.get("image") is not None:
        source = volume["image"]
        source["pullPolicy"] = source.get("pullPolicy") or pull_policy(str(source.get("reference") or ""))
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if template:
        template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _volume_items(source: JSONObject, kind: str) -> None:
    if kind == "downwardAPI":
        for item in source.get("items") or ():
            _field_reference(item.get("fieldRef"))
    for projection in source.get("sources") or () if kind == "projected" else ():
        token = projection.get("serviceAccountToken")
        if token is not None:
            token.setdefault("expirationSeconds", TOKEN_SECONDS)
        for item in (projection.get("downwardAPI") or {}).get("items") or ():
            _field_reference(item.get("fieldRef"))


def _persistent_source(volume: JSONObject) -> None:
    """Sources that a pod's volume and a persistent volume share."""
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    if volume.get("iscsi") is not None:
        volume["iscsi"].setdefault("iscsiInterface", "default")


def _pod(pod: JSONObject) -> None:
    if pod.get("spec") is None:
        pod["spec"] = {}
    pod_spec(pod["spec"])


def _namespace(namespace: JSONObject) -> None:
    metadata = namespace.setdefault("metadata", {})
    if metadata.get("name"):
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}


def _secret(secret: JSONObject) -> None:
    secret["type"] = secret.get("type") or "Opaque"
    extra = secret.pop("stringData", None)
    if extra:
        encoded = {key: b64encode(value.encode()).decode() for key, value in extra.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}


def _claim(claim: JSONObject) -> None:
    spec = claim.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("resources", {})


def _volume_object(volume: JSONObject) -> None:
    spec = volume.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    _persistent_source(spec)


def _node(node: JSONObject) -> None:
    status = node.get("status")
    if status and status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _storage_class(entry: JSONObject) -> None:
    entry.setdefault("reclaimPolicy", "Delete")
    entry.setdefault("volumeBindingMode", "Immediate")


def _token_request(request: JSONObject) -> None:
    request.setdefault("spec", {}).setdefault("expirationSeconds", TOKEN_SECONDS)


_KINDS: dict[tuple[str, str], Callable[[Any], None]] = {
    ("", "Pod"): _pod,
    ("", "Namespace"): _namespace,
    ("", "Secret"): _secret,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "PersistentVolume"): _volume_object,
    ("", "Node"): _node,
    ("storage.k8s.io", "StorageClass"): _storage_class,
    ("authentication.k8s.io", "TokenRequest"): _token_request,
}
