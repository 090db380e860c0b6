"""What is particular to a kind when it is written: the few places where Kubernetes is not the same for all.

`Strategy` is the ordinary kind; `strategy(resource)` finds the row's own. A strategy changes objects in place and
decides nothing that validation or admission could.
"""

from __future__ import annotations

from base64 import b64encode
from copy import deepcopy

from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.client import DeleteOptions

DEFAULT_POD_GRACE = 30


class Strategy:
    """An ordinary kind: status through its own path, spec counted by generation."""

    generations = True
    """Whether metadata.generation counts changes of the spec."""
    returns_deleted = False
    """Whether a delete answers with the object instead of a Status."""

    def prepare_create(self, resource: Resource, obj: JSONObject) -> None:
        """Make a new object what a new object is: without status, generation 1."""
        if resource.has_status:
            obj.pop("status", None)
        if self.generations and resource.has_status:
            obj["metadata"]["generation"] = 1

    def prepare_update(self, resource: Resource, new: JSONObject, old: JSONObject, subresource: str) -> None:
        """Take back what this path may not write."""
        if subresource == "status":
            self.keep_all_but_status(new, old)
        elif subresource == "" and resource.has_status:
            _keep(new, old, "status")
        if self.generations and resource.has_status:
            self._count(new, old)

    def keep_all_but_status(self, new: JSONObject, old: JSONObject) -> None:
        """Restore everything a status update may not touch."""
        for field in [*new, *old]:
            if field not in ("metadata", "status", "apiVersion", "kind"):
                _keep(new, old, field)
        for field in ("ownerReferences", "finalizers"):
            _keep(new["metadata"], old["metadata"], field)

    def _count(self, new: JSONObject, old: JSONObject) -> None:
        generation = int(old["metadata"].get("generation") or 1)
        if new.get("spec") != old.get("spec"):
            generation += 1
        new["metadata"]["generation"] = generation

    def grace(self, obj: JSONObject, options: DeleteOptions) -> int:  # noqa: ARG002 - for pods
        """Return the seconds an object may stay after its deletion was asked for."""
        return 0

    def holds(self, obj: JSONObject) -> bool:  # noqa: ARG002 - for namespaces
        """Whether something else than metadata.finalizers keeps a deleted object."""
        return False

    def marked(self, obj: JSONObject) -> None:
        """Write more into an object whose deletion begins."""

    def finished(self, obj: JSONObject) -> bool:
        """Whether a deleted object has been let go by everyone and can vanish now."""
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
            return False
        return not metadata.get("deletionGracePeriodSeconds") and not self.holds(obj)


class Pods(Strategy):
    """Pods are deleted with grace, and their node ends it with a delete of grace 0."""

    returns_deleted = True

    def prepare_create(self, resource: Resource, obj: JSONObject) -> None:
        """A new pod is Pending; its QoS class follows from its resources."""
        super().prepare_create(resource, obj)
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj)}

    def prepare_update(self, resource: Resource, new: JSONObject, old: JSONObject, subresource: str) -> None:
        """The QoS class never changes; `ephemeralcontainers` writes those and nothing else."""
        if subresource == "ephemeralcontainers":
            added = (new.get("spec") or {}).get("ephemeralContainers")
            _keep(new, old, "spec")
            _keep(new, old, "status")
            if added is not None:
                new["spec"]["ephemeralContainers"] = added
        super().prepare_update(resource, new, old, subresource)
        known = (old.get("status") or {}).get("qosClass")
        if known and isinstance(new.get("status"), dict):
            new["status"]["qosClass"] = known

    def grace(self, obj: JSONObject, options: DeleteOptions) -> int:
        """As asked, else as the spec says; 0 where there is nothing to stop."""
        spec = obj.get("spec") or {}
        phase = (obj.get("status") or {}).get("phase")
        if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
            return 0
        if options.grace_seconds is not None:
            return max(options.grace_seconds, 0)
        if obj["metadata"].get("deletionTimestamp"):
            return int(obj["metadata"].get("deletionGracePeriodSeconds") or 0)
        seconds = spec.get("terminationGracePeriodSeconds")
        # A negative grace of the spec means one second (core/v1 PodSpec).
        return max(int(seconds), 1) if seconds is not None and int(seconds) != 0 else _default_grace(seconds)


def _default_grace(seconds: object) -> int:
    return DEFAULT_POD_GRACE if seconds is None else 0


class Namespaces(Strategy):
    """Namespaces go when their content has gone: `spec.finalizers` is emptied through `finalize`."""

    generations = False

    def prepare_create(self, resource: Resource, obj: JSONObject) -> None:
        """A new namespace is Active, finalized by the platform, and labelled with its name."""
        super().prepare_create(resource, obj)
        spec = obj.setdefault("spec", {}) or {}
        finalizers = spec.get("finalizers") or []
        obj["spec"] = {**spec, "finalizers": sorted({*finalizers, "kubernetes"})}
        obj["status"] = {"phase": "Active"}
        self._label(obj)

    def prepare_update(self, resource: Resource, new: JSONObject, old: JSONObject, subresource: str) -> None:
        """Only `finalize` writes spec.finalizers, and nothing else."""
        super().prepare_update(resource, new, old, subresource)
        if subresource == "finalize":
            spec = new.get("spec") or {}
            for field in [*new, *old]:
                if field not in ("metadata", "spec", "apiVersion", "kind"):
                    _keep(new, old, field)
            new["spec"] = spec
        else:
            _keep(new, old, "spec")
        self._label(new)

    def _label(self, obj: JSONObject) -> None:
        metadata = obj["metadata"]
        if metadata.get("name"):
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}

    def holds(self, obj: JSONObject) -> bool:
        """Content may be left while finalizers are."""
        return bool((obj.get("spec") or {}).get("finalizers"))

    def marked(self, obj: JSONObject) -> None:
        """Nothing new may be created in it from now on."""
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}


class Plain(Strategy):
    """Kinds of the core group that have never counted generations."""

    generations = False


class Phased(Plain):
    """Volumes and claims begin as Pending and answer a delete with themselves."""

    returns_deleted = True

    def prepare_create(self, resource: Resource, obj: JSONObject) -> None:
        """Nothing is bound yet."""
        super().prepare_create(resource, obj)
        obj["status"] = {"phase": "Pending"}


class Returned(Plain):
    """Answers a delete with the object."""

    returns_deleted = True


class Nodes(Plain):
    """A kubelet registers its node with its status."""

    def prepare_create(self, resource: Resource, obj: JSONObject) -> None:
        """Keep the status."""


class Secrets(Plain):
    """`stringData` is written, never read."""

    def prepare_create(self, resource: Resource, obj: JSONObject) -> None:
        """Fold stringData into data."""
        super().prepare_create(resource, obj)
        fold_string_data(obj)

    def prepare_update(self, resource: Resource, new: JSONObject, old: JSONObject, subresource: str) -> None:
        """Fold stringData into data."""
        super().prepare_update(resource, new, old, subresource)
        fold_string_data(new)


_STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "pods"): Pods(),
    ("", "namespaces"): Namespaces(),
    ("", "nodes"): Nodes(),
    ("", "secrets"): Secrets(),
    ("", "serviceaccounts"): Returned(),
    ("", "persistentvolumes"): Phased(),
    ("", "persistentvolumeclaims"): Phased(),
}
_ORDINARY = Strategy()
_PLAIN = Plain()


def strategy(resource: Resource) -> Strategy:
    """Return how objects of a resource are written."""
    found = _STRATEGIES.get((resource.group, resource.plural))
    return found or (_ORDINARY if resource.group else _PLAIN)


def fold_string_data(obj: JSONObject) -> None:
    """Move `stringData` into `data`, base64-encoded, as the API documents it."""
    extra = obj.pop("stringData", None)
    if not isinstance(extra, dict) or not extra:
        return
    encoded = {key: b64encode(str(value).encode()).decode() for key, value in extra.items()}
    obj["data"] = {**(obj.get("data") or {}), **encoded}


def qos_class(pod: JSONObject) -> str:
    """Return Guaranteed, Burstable or BestEffort by the requests and limits of all containers.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
    """
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    some, all_limited = False, True
    for container in containers:
        resources = container.get("resources") or {} if isinstance(container, dict) else {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit = limits.get(name)
            request = requests.get(name, limit)
            some = some or limit is not None or request is not None
            all_limited = all_limited and limit is not None and str(request) == str(limit)
    if not some:
        return "BestEffort"
    return "Guaranteed" if all_limited else "Burstable"


def _keep(new: JSONObject, old: JSONObject, field: str) -> None:
    if field in old:
        new[field] = deepcopy(old[field])
    else:
        new.pop(field, None)
