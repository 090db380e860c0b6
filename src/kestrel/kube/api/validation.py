"""Validation: what an object of each kind must be, as a list of field errors (none when it is fine).

`validate` checks metadata for every kind and then what is particular to it; on an update it also gets the old object
and checks that what may not change did not. Defaults have been applied and types checked before (`defaults`, `fields`).
The sentences are Kubernetes' own, as kubectl shows them and people search for them. Rules for pods and volumes are in
`pod_rules`, `container_rules` and `volume_rules`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from kestrel.kube.api import checks, names, pod_rules, status, volume_rules
from kestrel.kube.api.checks import Found
from kestrel.kube.api.names import Checker
from kestrel.kube.api.resource import JSONObject, Resource
from kestrel.kube.api.status import FieldError

MAX_ANNOTATIONS = 256 * 1024
"""Bytes of all annotations together."""
MAX_DATA = 1024 * 1024
"""Bytes of all values of a ConfigMap or Secret together."""

_DATA_IMMUTABLE = "field is immutable when `immutable` is set"
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def validate(
    resource: Resource, obj: JSONObject, old: JSONObject | None = None, subresource: str = ""
) -> list[FieldError]:
    """Everything wrong with the object, in field order."""
    found: Found = []
    _metadata(found, resource, obj.get("metadata") or {})
    if old is not None:
        _metadata_update(found, obj.get("metadata") or {}, old.get("metadata") or {})
    check = _KINDS.get((resource.group, resource.kind))
    if check is not None:
        check(found, obj, old, subresource)
    return found


# -- metadata ---------------------------------------------------------------------------------------------------------


def name_checker(resource: Resource) -> Checker:
    """The syntax of names of a kind."""
    return _NAMES.get((resource.group, resource.kind), names.dns_subdomain)


_NAMES: dict[tuple[str, str], Checker] = {
    ("", "Namespace"): names.dns_label,
    ("", "Service"): names.dns1035_label,
    ("rbac.authorization.k8s.io", "Role"): names.path_segment,
    ("rbac.authorization.k8s.io", "RoleBinding"): names.path_segment,
    ("rbac.authorization.k8s.io", "ClusterRole"): names.path_segment,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): names.path_segment,
}


def _metadata(found: Found, resource: Resource, metadata: JSONObject) -> None:
    if not resource.stored:
        return
    checker = name_checker(resource)
    base, name = metadata.get("generateName"), metadata.get("name")
    if base:
        for sentence in names.generated(checker, base):
            found.append(status.invalid("metadata.generateName", base, sentence))
    if not name:
        found.append(status.required("metadata.name", "name or generateName is required"))
    else:
        checks.syntax(found, "metadata.name", name, checker)
    _namespace(found, resource, metadata.get("namespace"))
    checks.labels(found, "metadata.labels", metadata.get("labels"))
    _annotations(found, metadata.get("annotations") or {})
    _owners(found, metadata.get("ownerReferences") or ())
    _finalizers(found, "metadata.finalizers", metadata.get("finalizers") or ())


def _namespace(found: Found, resource: Resource, namespace: str | None) -> None:
    if not resource.namespaced:
        if namespace:
            found.append(status.forbidden_field("metadata.namespace", "not allowed on this type"))
    else:
        checks.named(found, "metadata.namespace", namespace, names.dns_label)


def _annotations(found: Found, annotations: dict[str, str]) -> None:
    size = 0
    for key, value in annotations.items():
        for sentence in names.qualified_name(key.lower()):
            found.append(status.invalid("metadata.annotations", key, sentence))
        size += len(key.encode()) + len(value.encode())
    if size > MAX_ANNOTATIONS:
        found.append(status.too_long("metadata.annotations", MAX_ANNOTATIONS))


def _owners(found: Found, references: Any) -> None:
    controller = ""
    for index, reference in enumerate(references):
        path = f"metadata.ownerReferences[{index}]"
        for field, word in (("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid")):
            if not reference.get(field):
                found.append(status.invalid(f"{path}.{field}", "", f"{word} must not be empty"))
        if reference.get("controller"):
            who = f"{reference.get('kind')}/{reference.get('name')}"
            if controller:
                sentence = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{controller} and {who}"
                )
                found.append(status.invalid("metadata.ownerReferences", list(references), sentence))
            controller = who


def _finalizers(found: Found, path: str, finalizers: Any) -> None:
    for name in finalizers:
        checks.syntax(found, path, name, names.qualified_name)
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            sentence = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(status.invalid(path, name, sentence))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        sentence = "finalizer orphan and foregroundDeletion cannot be both set"
        found.append(status.invalid(path, list(finalizers), sentence))


def _metadata_update(found: Found, new: JSONObject, old: JSONObject) -> None:
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"):
        if new.get(field) != old.get(field):
            value = new.get(field) or ""
            found.append(status.invalid(f"metadata.{field}", value, names.IMMUTABLE))
    if (new.get("generation") or 0) < (old.get("generation") or 0):
        found.append(status.invalid("metadata.generation", new.get("generation"), "must not be decremented"))
    if old.get("deletionTimestamp"):
        added = [name for name in new.get("finalizers") or () if name not in (old.get("finalizers") or ())]
        if added:
            sentence = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{', '.join(f'{name!r}' for name in added)}}}".replace("'", '"')
            )
            found.append(status.forbidden_field("metadata.finalizers", sentence))


# -- kinds ------------------------------------------------------------------------------------------------------------


def _pod(found: Found, pod: JSONObject, old: JSONObject | None, subresource: str) -> None:
    if old is None:
        pod_rules.created(found, pod)
    else:
        pod_rules.updated(found, pod, old, subresource)


def _config_map(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    size = 0
    for key, value in data.items():
        checks.syntax(found, f"data[{key}]", key, names.config_key)
        if key in binary:
            found.append(status.invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += len(value.encode())
    for key, value in binary.items():
        checks.syntax(found, f"binaryData[{key}]", key, names.config_key)
        size += len(value) * 3 // 4
    if size > MAX_DATA:
        found.append(status.too_long("", MAX_DATA))
    _frozen_data(found, obj, old, ("data", "binaryData"))


def _frozen_data(found: Found, obj: JSONObject, old: JSONObject | None, fields: tuple[str, ...]) -> None:
    """Once `immutable` is set, neither it nor the data can change."""
    if old is None or not old.get("immutable"):
        return
    if not obj.get("immutable"):
        found.append(status.forbidden_field("immutable", _DATA_IMMUTABLE))
    for field in fields:
        if (obj.get(field) or {}) != (old.get(field) or {}):
            found.append(status.forbidden_field(field, _DATA_IMMUTABLE))


_SECRET_KEYS: dict[str, tuple[str, ...]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _secret(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    data = obj.get("data") or {}
    size = 0
    for key, value in data.items():
        checks.syntax(found, f"data[{key}]", key, names.config_key)
        size += len(value) * 3 // 4
    if size > MAX_DATA:
        found.append(status.too_long("data", MAX_DATA))
    kind = obj.get("type") or ""
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            found.append(status.required(f"data[{key}]"))
    _secret_content(found, obj, kind, data)
    if old is not None:
        checks.unchanged(found, "type", kind, old.get("type") or "")
    _frozen_data(found, obj, old, ("data",))


def _secret_content(found: Found, obj: JSONObject, kind: str, data: dict[str, str]) -> None:
    if kind == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        found.append(status.required("data[username]"))
        found.append(status.required("data[password]"))
    if kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            found.append(status.required("metadata.annotations[kubernetes.io/service-account.name]"))
    if kind == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" in data:
        import json

        try:
            json.loads(base64.b64decode(data[".dockerconfigjson"]))
        except ValueError as error:
            found.append(status.invalid("data[.dockerconfigjson]", "<secret contents redacted>", str(error)))


def _namespace_kind(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    _finalizers(found, "spec.finalizers", (obj.get("spec") or {}).get("finalizers") or ())


def _node(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    seen = set()
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        path = f"spec.taints[{index}]"
        checks.syntax(found, f"{path}.key", taint.get("key") or "", names.qualified_name)
        checks.syntax(found, f"{path}.value", taint.get("value") or "", names.label_value)
        checks.one_of(found, f"{path}.effect", taint.get("effect"), pod_rules.EFFECTS, needed=True)
        key = (taint.get("key"), taint.get("effect"))
        if key in seen:
            found.append(status.duplicate(path, taint))
        seen.add(key)
    for name, amount in ((obj.get("status") or {}).get("capacity") or {}).items():
        checks.not_negative(found, f"status.capacity[{name}]", amount)


def _volume(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:
    if subresource != "status":
        volume_rules.persistent_volume(found, obj, old)


def _claim(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:
    if subresource != "status":
        volume_rules.claim(found, obj, old)


def _event(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    about = (obj.get("involvedObject") or obj.get("regarding") or {}).get("namespace") or ""
    own = (obj.get("metadata") or {}).get("namespace") or ""
    if about != own and not (not about and own in ("default", "kube-system")):
        found.append(status.invalid("involvedObject.namespace", about, "does not match event.namespace"))


def _lease(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    spec = obj.get("spec") or {}
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if seconds is not None and seconds <= 0:
        found.append(status.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    checks.at_least(found, "spec.leaseTransitions", transitions, 0)


def _storage_class(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    checks.named(found, "provisioner", (obj.get("provisioner") or "").lower(), names.qualified_name)
    checks.one_of(found, "reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"), needed=True)
    modes = ("Immediate", "WaitForFirstConsumer")
    checks.one_of(found, "volumeBindingMode", obj.get("volumeBindingMode"), modes, needed=True)
    if old is None:
        return
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        if obj.get(field) != old.get(field):
            found.append(status.forbidden_field(field, f"updates to {field} are forbidden."))
    checks.unchanged(found, "volumeBindingMode", obj.get("volumeBindingMode"), old.get("volumeBindingMode"))


def _binding(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    target = obj.get("target") or {}
    if target.get("kind") not in (None, "", "Node"):
        found.append(status.not_supported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        found.append(status.required("target.name"))


def _token_request(found: Found, obj: JSONObject, old: JSONObject | None, subresource: str) -> None:  # noqa: ARG001
    seconds = (obj.get("spec") or {}).get("expirationSeconds", 3600)
    if seconds < 600:
        sentence = "may not specify a duration less than 10 minutes"
        found.append(status.invalid("spec.expirationSeconds", seconds, sentence))
    elif seconds > 1 << 32:
        sentence = "may not specify a duration larger than 2^32 seconds"
        found.append(status.invalid("spec.expirationSeconds", seconds, sentence))


_Check = Callable[[Found, JSONObject, JSONObject | None, str], None]
_KINDS: dict[tuple[str, str], _Check] = {
    ("", "Pod"): _pod,
    ("", "ConfigMap"): _config_map,
    ("", "Secret"): _secret,
    ("", "Namespace"): _namespace_kind,
    ("", "Node"): _node,
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Event"): _event,
    ("", "Binding"): _binding,
    ("events.k8s.io", "Event"): _event,
    ("coordination.k8s.io", "Lease"): _lease,
    ("storage.k8s.io", "StorageClass"): _storage_class,
    ("authentication.k8s.io", "TokenRequest"): _token_request,
}
