"""Which volume suits which claim; pure (kubernetes.io "Persistent Volumes", binding)."""

from collections.abc import Iterable
from fractions import Fraction

from kestrel.kube.api.pod_resources import amount
from kestrel.kube.api.selectors import Labels
from kestrel.kube.client import JSONObject

DEFAULT_MARK = "storageclass.kubernetes.io/is-default-class"
FINISHED = ("Succeeded", "Failed")


def size(claim: JSONObject) -> Fraction:
    """Return how many bytes a claim asks for."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return amount(requests.get("storage", 0))


def capacity(volume: JSONObject) -> Fraction:
    """Return how many bytes a volume has."""
    return amount((volume["spec"].get("capacity") or {}).get("storage", 0))


def phase(body: JSONObject) -> str:
    """Return the phase of a claim or volume, Pending before it has one."""
    return str((body.get("status") or {}).get("phase") or "Pending")


def is_of(volume: JSONObject, claim: JSONObject) -> bool:
    """Whether the volume is meant for this very claim, by name and, if it says so, by identity."""
    reference = volume["spec"].get("claimRef") or {}
    metadata = claim["metadata"]
    named = (reference.get("namespace"), reference.get("name")) == (metadata["namespace"], metadata["name"])
    return named and reference.get("uid") in (None, "", metadata["uid"])


def best(claim: JSONObject, volumes: Iterable[JSONObject], class_name: str) -> JSONObject | None:
    """Return the volume to bind: one reserved for the claim, else the smallest free one that suits; None if none."""
    candidates = [volume for volume in volumes if not volume["metadata"].get("deletionTimestamp")]
    wanted = claim["spec"].get("volumeName")
    if wanted:
        named = [volume for volume in candidates if volume["metadata"]["name"] == wanted]
        return next((v for v in named if not v["spec"].get("claimRef") or is_of(v, claim)), None)
    reserved = [volume for volume in candidates if is_of(volume, claim)]
    if reserved:
        return reserved[0]
    free = [volume for volume in candidates if not volume["spec"].get("claimRef") and suits(claim, volume, class_name)]
    return min(free, key=lambda volume: (capacity(volume), volume["metadata"]["name"]), default=None)


def suits(claim: JSONObject, volume: JSONObject, class_name: str) -> bool:
    """Whether class, size, access modes, mode and selector of a claim are met by a volume."""
    spec, own = claim["spec"], volume["spec"]
    if (own.get("storageClassName") or "") != class_name or capacity(volume) < size(claim):
        return False
    if not set(spec.get("accessModes") or ()) <= set(own.get("accessModes") or ()):
        return False
    if (spec.get("volumeMode") or "Filesystem") != (own.get("volumeMode") or "Filesystem"):
        return False
    selector = spec.get("selector")
    return selector is None or Labels.of(selector).matches(volume["metadata"].get("labels"))


def default_class(classes: Iterable[JSONObject]) -> str:
    """Return the name of the default StorageClass, the newest of several; empty when there is none."""
    marked = [c for c in classes if (c["metadata"].get("annotations") or {}).get(DEFAULT_MARK) == "true"]
    newest = max(marked, key=lambda c: str(c["metadata"].get("creationTimestamp", "")), default=None)
    return str(newest["metadata"]["name"]) if newest else ""


def used_by(claim: JSONObject, pods: Iterable[JSONObject]) -> list[str]:
    """Return the names of the pods that use the claim and have not ended."""
    namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
    return [
        str(pod["metadata"]["name"])
        for pod in pods
        if pod["metadata"]["namespace"] == namespace
        and (pod.get("status") or {}).get("phase") not in FINISHED
        and any(
            (v.get("persistentVolumeClaim") or {}).get("claimName") == name for v in pod["spec"].get("volumes") or ()
        )
    ]
