"""Admission: what the cluster says about an object after its kind has, before it is stored.

A fixed chain, each a plain method here: the namespace must be there and not be going; a pod gets its service
account, its priority and the two tolerations every pod has; the namespaces of the platform stay.

Pods get no API token unless `automount_tokens` is set: a token is of use only where pods can reach the API by the
address they are told, which is the Service `kubernetes`, and that comes with Services. TokenRequest and projected
volumes that name a token work all the same.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import closing
from dataclasses import dataclass

from kestrel.kube.api import status
from kestrel.kube.api.scheme import BUILTIN, JSONObject, Resource
from kestrel.kube.store import Key, ObjectStore

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_ACCOUNT_SECONDS = 1.0
"""How long a pod waits for its service account: `default` is made a moment after its namespace."""

_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")

_NAMESPACES = BUILTIN.by_plural("", "v1", "namespaces")
assert _NAMESPACES is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings:
    """What the cluster does to objects beyond their kinds' rules."""

    automount_tokens: bool = False


class Admission:
    """The chain, over the store that knows namespaces and service accounts."""

    def __init__(self, store: ObjectStore, settings: AdmissionSettings = AdmissionSettings()) -> None:
        self._store = store
        self._settings = settings

    async def create(self, resource: Resource, namespace: str, obj: JSONObject) -> None:
        """Check and complete a new object."""
        self._namespace_lives(resource, namespace, obj)
        if (resource.group, resource.plural) == ("", "pods"):
            await self._pod(resource, namespace, obj)

    def delete(self, resource: Resource, key: Key) -> None:
        """Refuse to delete what the platform cannot do without."""
        if (resource.group, resource.plural) == ("", "namespaces") and key.name in IMMORTAL:
            raise status.forbidden(resource, key.name, "this namespace may not be deleted")

    def _namespace_lives(self, resource: Resource, namespace: str, obj: JSONObject) -> None:
        if not resource.namespaced:
            return
        assert _NAMESPACES is not None
        record = self._store.get(Key("namespaces", "", namespace))
        if record is None:
            raise status.not_found(_NAMESPACES, namespace)
        found = record.object
        if found["metadata"].get("deletionTimestamp") or (found.get("status") or {}).get("phase") == "Terminating":
            name = str(obj["metadata"].get("name", ""))
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = status.forbidden(resource, name, why)
            body = error.context["status"]
            assert isinstance(body, dict)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            body["details"]["causes"] = [cause]
            raise error

    async def _pod(self, resource: Resource, namespace: str, pod: JSONObject) -> None:
        spec = pod.get("spec")
        if not isinstance(spec, dict):
            return
        account = await self._account(resource, namespace, pod, spec)
        if self._settings.automount_tokens and _automounts(spec, account):
            mount_token(spec)
        _prioritise(resource, pod, spec)
        _tolerate(spec)

    async def _account(self, resource: Resource, namespace: str, pod: JSONObject, spec: JSONObject) -> JSONObject:
        name = str(spec.get("serviceAccountName") or spec.get("serviceAccount") or "default")
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._wait(Key("serviceaccounts", namespace, name))
        if account is None:
            why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
            raise status.forbidden(resource, str(pod["metadata"].get("name", "")), why)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(entry) for entry in account["imagePullSecrets"]]
        return account

    async def _wait(self, key: Key) -> JSONObject | None:
        """Return an object that may be about to be created."""
        record = self._store.get(key)
        if record is None:
            watch = self._store.watch(key.resource, key.namespace, since=self._store.version, name=key.name)
            with closing(watch):
                try:
                    await asyncio.wait_for(watch.batch(), _ACCOUNT_SECONDS)
                except TimeoutError:
                    return None
            record = self._store.get(key)
        return record.object if record is not None else None


def _automounts(spec: JSONObject, account: JSONObject) -> bool:
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = account.get("automountServiceAccountToken")
    return wanted is not False


def mount_token(spec: JSONObject) -> None:
    """Add the projected volume with token, authority and namespace, where no container has that path yet."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    without = [c for c in containers if isinstance(c, dict) and not _mounts(c, TOKEN_PATH)]
    if not without:
        return
    name = f"kube-api-access-{secrets.token_hex(3)[:5]}"
    for container in without:
        mounts = container.get("volumeMounts") or []
        container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}]
    field = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [field]}},
    ]
    spec["volumes"] = [
        *(spec.get("volumes") or []),
        {"name": name, "projected": {"sources": sources, "defaultMode": 420}},
    ]


def _mounts(container: JSONObject, path: str) -> bool:
    return any(mount.get("mountPath") == path for mount in container.get("volumeMounts") or ())


def _prioritise(resource: Resource, pod: JSONObject, spec: JSONObject) -> None:
    name = spec.get("priorityClassName")
    if name and name not in _PRIORITIES:
        why = f"no PriorityClass with name {name} was found"
        raise status.forbidden(resource, str(pod["metadata"].get("name", "")), why)
    spec["priority"] = _PRIORITIES.get(str(name), 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _tolerate(spec: JSONObject) -> None:
    """Let a pod stay five minutes on a node that is in trouble (DefaultTolerationSeconds)."""
    tolerations = list(spec.get("tolerations") or [])
    for taint in _TAINTS:
        if not any(_covers(toleration, taint) for toleration in tolerations):
            toleration = {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            tolerations.append(toleration)
    spec["tolerations"] = tolerations


def _covers(toleration: JSONObject, taint: str) -> bool:
    return toleration.get("key") in (taint, None, "") and toleration.get("effect") in ("NoExecute", None, "")
