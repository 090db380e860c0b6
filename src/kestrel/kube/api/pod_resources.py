"""What a pod asks of a node: requests, limits, quality of service, ports of the host; pure.

Sums follow kubernetes.io "Init Containers" and "Sidecar Containers", resource sharing: a pod needs the larger of what
its app containers and sidecars take together and what any init container takes beside the sidecars that were started
before it, plus its overhead.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from kestrel.kube.api import quantity

JSONObject = dict[str, Any]

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
_COUNTED = ("cpu", "memory")


def amount(value: object) -> Fraction:
    """Read a quantity (`250m`, `1Gi`, 2) as a number of its unit."""
    return quantity.parse(str(value))


def limits(container: JSONObject) -> dict[str, Fraction]:
    """Return the limits of one container by resource."""
    return _amounts(container, "limits")


def requests(container: JSONObject) -> dict[str, Fraction]:
    """Return the requests of one container by resource; a limit without a request is one."""
    return limits(container) | _amounts(container, "requests")


def pod_requests(pod: JSONObject) -> dict[str, Fraction]:
    """Return what the whole pod needs at its neediest moment, by resource."""
    spec = pod["spec"]
    beside: dict[str, Fraction] = {}
    peak: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            _add(beside, requests(container))
            _raise(peak, beside)
        else:
            at_once = dict(beside)
            _add(at_once, requests(container))
            _raise(peak, at_once)
    for container in spec.get("containers") or ():
        _add(beside, requests(container))
    _raise(peak, beside)
    whole = (spec.get("resources") or {}).get("requests") or {}
    peak |= {name: amount(value) for name, value in whole.items()}
    _add(peak, {name: amount(value) for name, value in (spec.get("overhead") or {}).items()})
    return peak


def qos_class(pod: JSONObject) -> str:
    """Return Guaranteed, Burstable or BestEffort (kubernetes.io "Pod Quality of Service Classes").

    Guaranteed needs equal requests and limits of cpu and memory in every container, BestEffort none of either.
    """
    containers = [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]
    asked = [{name: n for name, n in requests(c).items() if name in _COUNTED and n} for c in containers]
    capped = [{name: n for name, n in limits(c).items() if name in _COUNTED and n} for c in containers]
    if not any(asked) and not any(capped):
        return BEST_EFFORT
    same = all(a == c and len(c) == len(_COUNTED) for a, c in zip(asked, capped, strict=True))
    return GUARANTEED if same else BURSTABLE


def host_ports(pod: JSONObject) -> set[tuple[str, str, int]]:
    """Return (address, protocol, port) of every port of the host that the pod takes; address `0.0.0.0` is all."""
    taken = set()
    for container in [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]:
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if pod["spec"].get("hostNetwork") else 0)
            if number:
                taken.add((port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", int(number)))
    return taken


def conflicts(one: Iterable[tuple[str, str, int]], other: Iterable[tuple[str, str, int]]) -> bool:
    """Whether two sets of host ports clash; the address `0.0.0.0` clashes with every address."""
    return any(
        protocol == theirs[1] and port == theirs[2] and (address == theirs[0] or "0.0.0.0" in (address, theirs[0]))
        for address, protocol, port in one
        for theirs in other
    )


def _amounts(container: JSONObject, what: str) -> dict[str, Fraction]:
    found: Mapping[str, object] = (container.get("resources") or {}).get(what) or {}
    return {name: amount(value) for name, value in found.items()}


def _add(total: dict[str, Fraction], more: Mapping[str, Fraction]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, Fraction(0)) + value


def _raise(peak: dict[str, Fraction], level: Mapping[str, Fraction]) -> None:
    for name, value in level.items():
        peak[name] = max(peak.get(name, Fraction(0)), value)
