"""What the kubelet says of a pod: phase, conditions and the state of each container; pure.

`build` makes the whole status from the same `View` that decides what to do, so what is shown and what is done cannot
disagree. It takes over from the status that was last written: transition times of conditions that did not change,
conditions that others own, the start time, and a phase that was final.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kestrel.base.clock import rfc3339
from kestrel.base.errors import KestrelError
from kestrel.kube.api.pod_resources import qos_class
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet import sync
from kestrel.kube.kubelet.sync import Outcome, View
from kestrel.oci.reference import Reference
from kestrel.pods.model import PodContainer

OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
RUNTIME = "kestrel"


@dataclass(frozen=True, slots=True)
class Host:
    """The node's addresses as pods report them."""

    address: str


REASONS = {"ContainerCannotRun": "StartError"}
"""The engine's words, docker's, that kubectl's users know by containerd's."""


def build(view: View, host: Host, *, outcome: Outcome | None = None, ending: bool = False) -> JSONObject:
    """Return the pod's whole status as it is at `view.now`."""
    old = view.pod.get("status") or {}
    inits = [container_status(view, spec, ending=ending) for spec in pods.inits(view.pod)]
    apps = [container_status(view, spec, ending=ending) for spec in pods.containers(view.pod)]
    ephemerals = [container_status(view, spec, ending=ending) for spec in pods.ephemerals(view.pod)]
    phase = _phase(view, inits, apps, outcome, ending=ending)
    status: JSONObject = {
        "phase": phase,
        "hostIP": host.address,
        "hostIPs": [{"ip": host.address}],
        "startTime": old.get("startTime") or _stamp(view.now),
        "qosClass": old.get("qosClass") or qos_class(view.pod),
        "containerStatuses": apps,
    }
    if inits:
        status["initContainerStatuses"] = inits
    if ephemerals:
        status["ephemeralContainerStatuses"] = ephemerals
    status |= _reason(old, phase, outcome)
    status |= _addresses(view, old, host)
    status["conditions"] = _conditions(view, old, phase, inits, apps, bool(status.get("podIP")))
    kept = ("nominatedNodeName", "resize", "observedGeneration")
    return status | {key: old[key] for key in kept if key in old}


def difference(old: JSONObject, new: JSONObject) -> JSONObject:
    """Return the merge patch that makes `old` into `new`; empty when they are the same.

    A server may leave out what is null or empty, so such fields count as absent.
    """
    changed = {key: value for key, value in new.items() if _filled(old.get(key)) != _filled(value)}
    return changed | {key: None for key in old if key not in new}


def _filled(value: Any) -> Any:
    """Return a value without the fields that say nothing."""
    if isinstance(value, dict):
        return {key: kept for key, item in value.items() if (kept := _filled(item)) not in (None, {}, [])}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def container_status(view: View, spec: JSONObject, *, ending: bool) -> JSONObject:
    """Return the entry of one container."""
    name = spec["name"]
    attempts = view.record.attempts(name)
    latest = attempts[0] if attempts else None
    state, last = _state(view, spec, attempts, ending=ending)
    started = latest is not None and latest.running and f"start:{name}" not in view.busy
    if started and latest is not None:
        started = view.healthy(latest).started
    known: Any = latest or view.of(name).image
    return {
        "name": name,
        "image": spec.get("image", ""),
        "imageID": _image_id(str(spec.get("image", "")), known),
        **({"containerID": f"{RUNTIME}://{latest.id}"} if latest is not None else {}),
        "ready": _ready(view, spec, latest, started=started),
        "started": started,
        "restartCount": latest.attempt if latest is not None else 0,
        "state": state,
        "lastState": last,
    }


def _ready(view: View, spec: JSONObject, latest: PodContainer | None, *, started: bool) -> bool:
    if latest is None:
        return False
    if spec in pods.inits(view.pod) and not pods.is_sidecar(spec):
        return latest.exited and latest.exit_code == 0
    return started and view.healthy(latest).ready


def _state(
    view: View, spec: JSONObject, attempts: Sequence[PodContainer], *, ending: bool
) -> tuple[JSONObject, JSONObject]:
    """Return state and lastState."""
    latest = attempts[0] if attempts else None
    previous = _terminated(view, attempts[1]) if len(attempts) > 1 and attempts[1].exited else {}
    if latest is None:
        return _waiting(view, spec), {}
    if latest.running:
        started = _stamp((latest.started or latest.created).timestamp())
        return {"running": {"startedAt": started}}, previous
    if not latest.exited:
        return _waiting(view, spec), previous
    policy = _policy(view, spec)
    if ending or not sync.restarts(policy, latest):
        return _terminated(view, latest), previous
    memory = view.of(spec["name"])
    if memory.failure is not None or memory.image_failure is not None:
        return _waiting(view, spec), _terminated(view, latest)
    if view.now < memory.restart.due(sync.ended_at(latest)):
        delay = int(memory.restart.delay)
        message = f"back-off {_go_seconds(delay)} restarting failed container={spec['name']} pod={pods.title(view.pod)}"
        return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}, _terminated(view, latest)
    return _terminated(view, latest), previous


def _policy(view: View, spec: JSONObject) -> str:
    """How a container is restarted: an init container at least until it has ended well, a sidecar always, an
    ephemeral one never."""
    if pods.is_sidecar(spec):
        return pods.ALWAYS
    if spec in pods.ephemerals(view.pod):
        return pods.NEVER
    policy = pods.restart_policy(view.pod)
    is_init = spec in pods.inits(view.pod)
    return pods.ON_FAILURE if is_init and policy == pods.ALWAYS else policy


def _waiting(view: View, spec: JSONObject) -> JSONObject:
    memory = view.of(spec["name"])
    for failure in (memory.failure, memory.image_failure):
        if failure is not None:
            reason, message = failure.words(view.now)
            return {"waiting": {"reason": reason, "message": message}}
    waits = bool(pods.inits(view.pod)) and not sync.initialized(view)
    return {"waiting": {"reason": "PodInitializing" if waits else "ContainerCreating"}}


def _terminated(view: View, container: PodContainer) -> JSONObject:
    ended: JSONObject = {
        "exitCode": container.exit_code if container.exit_code is not None else 137,
        "reason": REASONS.get(container.reason, container.reason)
        or ("Completed" if not container.exit_code else "Error"),
        "finishedAt": _stamp(sync.ended_at(container)),
        "containerID": f"{RUNTIME}://{container.id}",
    }
    if container.started is not None:
        ended["startedAt"] = _stamp(container.started.timestamp())
    message = view.messages.get(container.id) or container.message
    if message:
        ended["message"] = message
    return {"terminated": ended}


def _image_id(image: str, known: Any) -> str:
    """The image by digest, `name@sha256:...`, as far as the name can be read."""
    digest = str(getattr(known, "image_digest", "") or getattr(known, "digest", "") or "")
    if not digest:
        return ""
    try:
        return f"{Reference.parse(image).name}@{digest}"
    except KestrelError:
        return digest


def _phase(
    view: View, inits: Sequence[JSONObject], apps: Sequence[JSONObject], outcome: Outcome | None, *, ending: bool
) -> str:
    """Sum the containers up (kubernetes.io "Pod Lifecycle", pod phase)."""
    old = pods.phase(view.pod)
    if old in pods.TERMINAL:
        return old
    alive = any(container.running for container in view.record.containers)
    if outcome is not None and not alive:
        return outcome.phase
    policy = pods.restart_policy(view.pod)
    if policy == pods.NEVER and not alive and _any_init_failed(view, inits):
        return "Failed"
    if not sync.initialized(view):
        return "Pending"
    return _app_phase(policy, apps, alive=alive, ending=ending)


def _any_init_failed(view: View, inits: Sequence[JSONObject]) -> bool:
    regular = {spec["name"] for spec in pods.inits(view.pod) if not pods.is_sidecar(spec)}
    states = [status["state"].get("terminated") for status in inits if status["name"] in regular]
    return any(ended is not None and ended["exitCode"] != 0 for ended in states)


def _app_phase(policy: str, apps: Sequence[JSONObject], *, alive: bool, ending: bool) -> str:
    never_ran = [s for s in apps if "waiting" in s["state"] and not s["lastState"]]
    if never_ran:
        return "Pending"
    if alive:
        return "Running"
    good = all(s["state"].get("terminated", {}).get("exitCode") == 0 for s in apps)
    if ending:
        return "Succeeded" if good else "Failed"
    if policy == pods.ALWAYS:
        return "Running"
    if good:
        return "Succeeded"
    return "Failed" if policy == pods.NEVER else "Running"


def _reason(old: JSONObject, phase: str, outcome: Outcome | None) -> JSONObject:
    if phase in pods.TERMINAL and outcome is not None:
        return {"reason": outcome.reason, "message": outcome.message}
    if phase in pods.TERMINAL:
        return {key: old[key] for key in ("reason", "message") if key in old}
    return {}


def _addresses(view: View, old: JSONObject, host: Host) -> JSONObject:
    if pods.host_network(view.pod):
        address = host.address if view.record.sandboxes else ""
    else:
        address = view.record.sandbox.address if view.record.sandbox else ""
    address = address or str(old.get("podIP") or "")
    return {"podIP": address, "podIPs": [{"ip": address}]} if address else {}


def _conditions(
    view: View, old: JSONObject, phase: str, inits: Sequence[JSONObject], apps: Sequence[JSONObject], placed: bool
) -> list[JSONObject]:
    initialized = sync.initialized(view)
    incomplete = [s["name"] for s in inits if not s["ready"]]
    ready_reason = _unready(view, phase, inits, apps)
    gates = _closed_gates(view.pod, old)
    sandbox = view.record.sandbox is not None and (placed or pods.host_network(view.pod))
    wanted: list[tuple[str, bool, str, str]] = [
        ("PodReadyToStartContainers", sandbox, "", ""),
        _initialized_condition(phase, initialized, incomplete),
        ("Ready", not ready_reason[0] and not gates, *(ready_reason if ready_reason[0] else _gate_words(gates))),
        ("ContainersReady", not ready_reason[0], *ready_reason),
        ("PodScheduled", True, "", ""),
    ]
    before = {condition["type"]: condition for condition in old.get("conditions") or ()}
    own = [_condition(before.get(kind), view.now, kind, good, reason, text) for kind, good, reason, text in wanted]
    return own + [condition for kind, condition in before.items() if kind not in OWNED]


def _initialized_condition(phase: str, initialized: bool, incomplete: Sequence[str]) -> tuple[str, bool, str, str]:
    if phase == "Succeeded":
        return "Initialized", True, "PodCompleted", ""
    if initialized:
        return "Initialized", True, "", ""
    text = f"containers with incomplete status: [{' '.join(incomplete)}]"
    return "Initialized", False, "ContainersNotInitialized", text


def _unready(view: View, phase: str, inits: Sequence[JSONObject], apps: Sequence[JSONObject]) -> tuple[str, str]:
    """Return why the containers are not ready: an empty reason when they are."""
    if phase == "Succeeded":
        return "PodCompleted", ""
    if phase == "Failed":
        return "PodFailed", ""
    side = {spec["name"] for spec in pods.sidecars(view.pod)}
    statuses = [*(s for s in inits if s["name"] in side), *apps]
    unready = [s["name"] for s in statuses if not s["ready"]]
    if unready:
        return "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return "", ""


def _closed_gates(pod: JSONObject, old: JSONObject) -> list[str]:
    """Return a sentence for each readiness gate whose condition somebody has yet to set to True."""
    states = {condition["type"]: condition.get("status") for condition in old.get("conditions") or ()}
    closed = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in states:
            closed.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif states[kind] != "True":
            closed.append(f'the status of pod readiness gate "{kind}" is not "True", but {states[kind]}')
    return closed


def _gate_words(gates: Sequence[str]) -> tuple[str, str]:
    return ("ReadinessGatesNotReady", ", ".join(gates)) if gates else ("", "")


def _condition(before: JSONObject | None, now: float, kind: str, good: bool, reason: str, text: str) -> JSONObject:
    status = "True" if good else "False"
    changed = before is None or before.get("status") != status
    since = _stamp(now) if changed or before is None else before.get("lastTransitionTime") or _stamp(now)
    found: JSONObject = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since}
    if reason:
        found["reason"] = reason
    if text:
        found["message"] = text
    return found


def _stamp(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


def _go_seconds(seconds: int) -> str:
    """Print whole seconds as Go prints a Duration: `10s`, `1m20s`, `5m0s`."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
