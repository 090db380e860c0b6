"""What a container may be told of its own pod: fields and resources (kubernetes.io "Downward API"); pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from kestrel.base.errors import InvalidArgument, NotFound
from kestrel.kube.api.pod_resources import amount, limits, requests
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known only on the node: addresses, and what the node has to give, by resource."""

    node: str = ""
    host_ip: str = ""
    pod_ip: str = ""
    allocatable: Mapping[str, Fraction] = field(default_factory=dict)


def pod_field(pod: JSONObject, path: str, facts: Facts) -> str:
    """Return a field of the pod as text; raises InvalidArgument for a path that is not offered."""
    metadata = pod["metadata"]
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        return _lines(metadata.get(path.partition(".")[2]) or {})
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName") or "default",
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path not in simple:
        raise InvalidArgument(f"unsupported fieldPath: {path}", hint=f"offered are {', '.join(sorted(simple))}")
    return str(simple[path])


def resource_field(pod: JSONObject, container: JSONObject, reference: JSONObject, facts: Facts) -> str:
    """Return a request or limit as a whole number of `divisor`, rounded up; without a limit, what the node has."""
    wanted = reference.get("containerName")
    if wanted:
        found = pods.container(pod, str(wanted))
        if found is None:
            raise NotFound(f"container {wanted} not found")
        container = found
    kind, _, name = str(reference["resource"]).partition(".")
    if kind not in ("requests", "limits"):
        raise InvalidArgument(f"unsupported container resource: {reference['resource']}")
    own = requests(container) if kind == "requests" else limits(container)
    value = own.get(name)
    if value is None:
        value = Fraction(0) if kind == "requests" else facts.allocatable.get(name, Fraction(0))
    divisor = amount(reference.get("divisor") or "1") or Fraction(1)
    return str(math.ceil(value / divisor))


def _lines(values: Mapping[str, str]) -> str:
    """Print `key="value"` lines, the value quoted as Go's %q does for ordinary text."""
    quoted = {
        key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, value in values.items()
    }
    return "\n".join(f'{key}="{quoted[key]}"' for key in sorted(quoted))
