"""What `kubectl get` prints: column definitions and the cells of a row, by kind.

A column of the resource table names either a field path or one of the functions in `CELLS`; kinds without columns show
name and age. The words of a Pod's STATUS follow kubectl's long-standing rules (kubernetes.io "Pod Lifecycle" names
them; `Init:0/1`, `CrashLoopBackOff`, `Completed`, `Terminating`), as scripts read them.

Cells are texts or numbers, and ages are rounded the way kubectl does, so that a server's table and a client's agree.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from kestrel.kube.api import meta
from kestrel.kube.api.resource import Column, JSONObject, Resource
from kestrel.kube.api.scheme import AGE, NAME

Cell = str | int | bool | None

_ACCESS = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_ROLE_PREFIX = "node-role.kubernetes.io/"
_DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


class Row:
    """One object being printed; keeps what several cells share."""

    __slots__ = ("_pod", "now", "obj")

    def __init__(self, obj: JSONObject, now: datetime) -> None:
        self.obj = obj
        self.now = now.timestamp()
        self._pod: PodSummary | None = None

    @property
    def pod(self) -> PodSummary:
        """The summary of a pod, computed once for all its cells."""
        if self._pod is None:
            self._pod = PodSummary(self.obj)
        return self._pod

    def part(self, name: str) -> JSONObject:
        """`spec`, `status` or another part; empty when it is not there."""
        found: JSONObject = self.obj.get(name) or {}
        return found


def columns_of(resource: Resource) -> tuple[Column, ...]:
    """The columns a kind is printed with."""
    return resource.columns or (NAME, AGE)


def columns(resource: Resource) -> list[JSONObject]:
    """The columnDefinitions of a Table."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns_of(resource)
    ]


def cells(resource: Resource, obj: JSONObject, now: datetime) -> list[Cell]:
    """The cells of one row, one per column."""
    row = Row(obj, now)
    return [_cell(column, row) for column in columns_of(resource)]


def _cell(column: Column, row: Row) -> Cell:
    if column.source[0] != ".":
        return CELLS[column.source](row)
    value: Any = row.obj
    for key in _steps(column.source):
        value = value.get(key) if isinstance(value, dict) else None
    if column.type == "date":
        return since(value, row.now)
    if value is None:
        return ""
    return value if isinstance(value, str | int) else str(value)


@lru_cache(maxsize=256)
def _steps(source: str) -> tuple[str, ...]:
    return tuple(source[1:].split("."))


# -- times ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _seconds(text: str) -> float | None:
    moment = meta.parse_time(text)
    return moment.timestamp() if moment else None


def since(text: str | None, now: float) -> str:
    """The age of a timestamp as kubectl prints it; `<unknown>` without one."""
    moment = _seconds(text) if text else None
    return "<unknown>" if moment is None else duration(now - moment)


def duration(seconds: float) -> str:
    """A duration in at most two units: `45s`, `3m20s`, `5h`, `2d3h`, `400d`, `3y`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"  # the clocks disagree by more than a rounding
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, unit: str, small: int, smaller: str) -> str:
    return f"{large}{unit}{small}{smaller}" if small else f"{large}{unit}"


# -- pods -------------------------------------------------------------------------------------------------------------


class PodSummary:
    """READY, STATUS and RESTARTS of a pod."""

    __slots__ = ("last", "ready", "reason", "restarts", "total")

    def __init__(self, pod: JSONObject) -> None:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        self.ready = self.restarts = 0
        self.last: float = 0.0
        self.total = len(spec.get("containers") or ())
        self.reason: str = status.get("reason") or status.get("phase") or ""
        conditions = {c.get("type"): c for c in status.get("conditions") or ()}
        if (conditions.get("PodScheduled") or {}).get("reason") == "SchedulingGated":
            self.reason = "SchedulingGated"
        init = spec.get("initContainers") or ()
        sidecars = {c.get("name") for c in init if c.get("restartPolicy") == "Always"}
        self.total += len(sidecars)
        waiting = self._initialising(status, sidecars, len(init)) if init else False
        if not waiting or _is_true(conditions.get("Initialized")):
            self._running(status, sidecars, _is_true(conditions.get("Ready")))
        self._terminating(pod, status)

    def _initialising(self, status: JSONObject, sidecars: set[Any], count: int) -> bool:
        """Whether an init container has yet to finish; the reason is that container's."""
        for index, entry in enumerate(status.get("initContainerStatuses") or ()):
            self._restarted(entry)
            state = entry.get("state") or {}
            ended = state.get("terminated")
            if ended is not None and not ended.get("exitCode"):
                continue
            if entry.get("name") in sidecars and entry.get("started"):
                self.ready += bool(entry.get("ready"))
                continue
            why = (state.get("waiting") or {}).get("reason")
            if ended is not None:
                self.reason = "Init:" + _ending(ended)
            elif why and why != "PodInitializing":
                self.reason = "Init:" + why
            else:
                self.reason = f"Init:{index}/{count}"
            return True
        return False

    def _running(self, status: JSONObject, sidecars: set[Any], is_ready: bool) -> None:
        self.restarts, self.last = 0, 0.0
        for entry in status.get("initContainerStatuses") or ():
            if entry.get("name") in sidecars:
                self._restarted(entry)
        running = False
        for entry in reversed(status.get("containerStatuses") or ()):
            self._restarted(entry)
            state = entry.get("state") or {}
            ended = state.get("terminated")
            if (state.get("waiting") or {}).get("reason"):
                self.reason = state["waiting"]["reason"]
            elif ended is not None:
                self.reason = _ending(ended)
            elif entry.get("ready") and state.get("running") is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if is_ready else "NotReady"

    def _restarted(self, entry: JSONObject) -> None:
        self.restarts += entry.get("restartCount") or 0
        ended = (entry.get("lastState") or {}).get("terminated")
        if ended and ended.get("finishedAt"):
            self.last = max(self.last, _seconds(ended["finishedAt"]) or 0.0)

    def _terminating(self, pod: JSONObject, status: JSONObject) -> None:
        if not (pod.get("metadata") or {}).get("deletionTimestamp"):
            return
        if status.get("reason") == "NodeLost":
            self.reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            self.reason = "Terminating"

    def restarts_text(self, now: float) -> str:
        """The count, and when it last happened."""
        if not self.restarts or not self.last:
            return str(self.restarts)
        return f"{self.restarts} ({duration(now - self.last)} ago)"


def _is_true(condition: JSONObject | None) -> bool:
    return condition is not None and condition.get("status") == "True"


def _ending(ended: JSONObject) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode') or 0}"


def _pod_ip(row: Row) -> Cell:
    status = row.part("status")
    addresses = status.get("podIPs") or ()
    return (addresses[0].get("ip") if addresses else status.get("podIP")) or "<none>"


def _readiness_gates(row: Row) -> Cell:
    gates = row.part("spec").get("readinessGates") or ()
    if not gates:
        return "<none>"
    conditions = {c.get("type"): c for c in row.part("status").get("conditions") or ()}
    true = sum(_is_true(conditions.get(gate.get("conditionType"))) for gate in gates)
    return f"{true}/{len(gates)}"


# -- nodes ------------------------------------------------------------------------------------------------------------


def _node_status(row: Row) -> Cell:
    ready = next((c for c in row.part("status").get("conditions") or () if c.get("type") == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if _is_true(ready) else "NotReady"]
    if row.part("spec").get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(row: Row) -> Cell:
    found = set()
    for key, value in meta.labels(row.obj).items():
        if key.startswith(_ROLE_PREFIX) and key != _ROLE_PREFIX:
            found.add(key.removeprefix(_ROLE_PREFIX))
        elif key == "kubernetes.io/role" and value:
            found.add(value)
    return ",".join(sorted(found)) or "<none>"


def _node_address(kind: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        for address in row.part("status").get("addresses") or ():
            if address.get("type") == kind:
                return str(address.get("address"))
        return "<none>"

    return cell


def _node_info(field: str) -> Callable[[Row], Cell]:
    return lambda row: (row.part("status").get("nodeInfo") or {}).get(field) or "<unknown>"


# -- events -----------------------------------------------------------------------------------------------------------


def _event_first(row: Row) -> str:
    return since(row.obj.get("firstTimestamp") or row.obj.get("eventTime"), row.now)


def _event_last(row: Row) -> Cell:
    series = row.part("series")
    if series:
        return since(series.get("lastObservedTime"), row.now)
    return since(row.obj["lastTimestamp"], row.now) if row.obj.get("lastTimestamp") else _event_first(row)


def _event_object(row: Row) -> Cell:
    about = row.part("involvedObject")
    return f"{str(about.get('kind') or '').lower()}/{about.get('name') or ''}"


def _event_source(row: Row) -> Cell:
    source = row.part("source")
    component = source.get("component") or row.obj.get("reportingComponent") or ""
    host = source.get("host") or row.obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host and component != host else str(component)


def _event_count(row: Row) -> Cell:
    return row.part("series").get("count") or row.obj.get("count") or 1


# -- storage ----------------------------------------------------------------------------------------------------------


def _access(modes: Any) -> str:
    present = set(modes or ())
    return ",".join(short for mode, short in _ACCESS.items() if mode in present)


def _phase(row: Row) -> Cell:
    if row.part("metadata").get("deletionTimestamp"):
        return "Terminating"
    return row.part("status").get("phase") or ""


def _claim_of(row: Row) -> Cell:
    claim = row.part("spec").get("claimRef")
    return f"{claim.get('namespace') or ''}/{claim.get('name') or ''}" if claim else ""


def _claim_capacity(row: Row) -> Cell:
    if not row.part("spec").get("volumeName"):
        return ""
    return (row.part("status").get("capacity") or {}).get("storage") or "0"


def _claim_modes(row: Row) -> Cell:
    return _access(row.part("status").get("accessModes")) if row.part("spec").get("volumeName") else ""


def _storage_class(row: Row) -> Cell:
    old = meta.annotations(row.obj).get("volume.beta.kubernetes.io/storage-class")
    return old or row.part("spec").get("storageClassName") or ""


def _class_name(row: Row) -> Cell:
    annotations = meta.annotations(row.obj)
    default = any(annotations.get(key) == "true" for key in _DEFAULT_CLASS)
    return meta.name(row.obj) + (" (default)" if default else "")


CELLS: dict[str, Callable[[Row], Cell]] = {
    "pod_ready": lambda row: f"{row.pod.ready}/{row.pod.total}",
    "pod_status": lambda row: row.pod.reason,
    "pod_restarts": lambda row: row.pod.restarts_text(row.now),
    "pod_ip": _pod_ip,
    "pod_node": lambda row: row.part("spec").get("nodeName") or "<none>",
    "pod_nominated_node": lambda row: row.part("status").get("nominatedNodeName") or "<none>",
    "pod_readiness_gates": _readiness_gates,
    "node_status": _node_status,
    "node_roles": _node_roles,
    "node_internal_ip": _node_address("InternalIP"),
    "node_external_ip": _node_address("ExternalIP"),
    "node_os_image": _node_info("osImage"),
    "node_kernel": _node_info("kernelVersion"),
    "node_runtime": _node_info("containerRuntimeVersion"),
    "data_count": lambda row: len(row.part("data")) + len(row.part("binaryData")),
    "secret_count": lambda row: len(row.obj.get("secrets") or ()),
    "event_last_seen": _event_last,
    "event_first_seen": _event_first,
    "event_type": lambda row: row.obj.get("type") or "",
    "event_reason": lambda row: row.obj.get("reason") or "",
    "event_object": _event_object,
    "event_subobject": lambda row: row.part("involvedObject").get("fieldPath") or "",
    "event_source": _event_source,
    "event_message": lambda row: str(row.obj.get("message") or "").strip(),
    "event_count": _event_count,
    "claim_status": _phase,
    "claim_capacity": _claim_capacity,
    "claim_access_modes": _claim_modes,
    "volume_access_modes": lambda row: _access(row.part("spec").get("accessModes")),
    "volume_status": _phase,
    "volume_claim": _claim_of,
    "volume_mode": lambda row: row.part("spec").get("volumeMode") or "<unset>",
    "storage_class": _storage_class,
    "attributes_class": lambda row: row.part("spec").get("volumeAttributesClassName") or "<unset>",
    "class_name": _class_name,
    "class_reclaim_policy": lambda row: row.obj.get("reclaimPolicy") or "Delete",
    "class_binding_mode": lambda row: row.obj.get("volumeBindingMode") or "<unset>",
    "class_expansion": lambda row: "true" if row.obj.get("allowVolumeExpansion") else "false",
}
"""Cells that are more than a field, by the word a column names them with."""
