"""Reading a Pod: the few questions that every module of the kubelet asks of the object; pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

from kestrel.kube.client import JSONObject

ALWAYS, ON_FAILURE, NEVER = "Always", "OnFailure", "Never"
TERMINAL = ("Succeeded", "Failed")


def uid(pod: JSONObject) -> str:
    """Return the pod's identity."""
    return str(pod["metadata"]["uid"])


def name(pod: JSONObject) -> str:
    """Return the pod's name."""
    return str(pod["metadata"]["name"])


def namespace(pod: JSONObject) -> str:
    """Return the pod's namespace."""
    return str(pod["metadata"]["namespace"])


def title(pod: JSONObject) -> str:
    """Return `name_namespace(uid)`, the form Kubernetes' own messages use."""
    return f"{name(pod)}_{namespace(pod)}({uid(pod)})"


def containers(pod: JSONObject) -> list[JSONObject]:
    """Return the app containers."""
    return list(pod["spec"].get("containers") or ())


def inits(pod: JSONObject) -> list[JSONObject]:
    """Return the init containers, sidecars among them, in their order."""
    return list(pod["spec"].get("initContainers") or ())


def sidecars(pod: JSONObject) -> list[JSONObject]:
    """Return the init containers that go on running."""
    return [container for container in inits(pod) if is_sidecar(container)]


def ephemerals(pod: JSONObject) -> list[JSONObject]:
    """Return the containers that were added while the pod ran, for looking into it."""
    return list(pod["spec"].get("ephemeralContainers") or ())


def every_container(pod: JSONObject) -> list[JSONObject]:
    """Return init, app and ephemeral containers."""
    return inits(pod) + containers(pod) + ephemerals(pod)


def container(pod: JSONObject, wanted: str) -> JSONObject | None:
    """Return the container of that name."""
    return next((found for found in every_container(pod) if found["name"] == wanted), None)


def is_sidecar(spec: JSONObject) -> bool:
    """Whether an init container is one that is restarted for ever."""
    return spec.get("restartPolicy") == ALWAYS


def restart_policy(pod: JSONObject) -> str:
    """Return Always, OnFailure or Never."""
    return str(pod["spec"].get("restartPolicy") or ALWAYS)


def phase(pod: JSONObject) -> str:
    """Return the phase that was last written."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def status_of(pod: JSONObject, name: str) -> JSONObject:
    """Return what was last written of a container, empty when nothing was."""
    status = pod.get("status") or {}
    keys = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    statuses = [found for key in keys for found in status.get(key) or ()]
    return next((found for found in statuses if found.get("name") == name), {})


def version(pod: JSONObject) -> int:
    """Return the object's resourceVersion as a number; our own store counts up, one for all objects."""
    return int(pod["metadata"].get("resourceVersion") or 0)


def host_network(pod: JSONObject) -> bool:
    """Whether the pod has the host's network."""
    return bool(pod["spec"].get("hostNetwork"))


def is_static(pod: JSONObject) -> bool:
    """Whether the pod is the mirror of a file on a node, which is not run from here."""
    return "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {})


def grace(pod: JSONObject) -> float:
    """Return how many seconds its containers have to end once they are asked to."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def moment(text: "str | None") -> float | None:
    """Read an RFC 3339 stamp of an object as seconds since the epoch; None stays None."""
    if not text:
        return None
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def deletion_deadline(pod: JSONObject, seen: float | None = None) -> float | None:
    """Return when a deleted pod's containers are killed, or None while it is not being deleted.

    The API server stamps whole seconds, rounded down; the second that may be lost is given back, but never more than
    the whole grace period after the deletion was `seen` here.
    """
    stamped = moment(pod["metadata"].get("deletionTimestamp"))
    if stamped is None or grace(pod) == 0:
        return stamped
    return stamped + 1 if seen is None else min(stamped + 1, seen + grace(pod))


def active_deadline(pod: JSONObject) -> float | None:
    """Return when `activeDeadlineSeconds` is over, or None."""
    seconds = pod["spec"].get("activeDeadlineSeconds")
    started = moment((pod.get("status") or {}).get("startTime"))
    return None if seconds is None or started is None else started + float(seconds)


def names(specs: Sequence[JSONObject]) -> list[str]:
    """Return the names of containers."""
    return [str(spec["name"]) for spec in specs]
