"""Requests and limits as the kernel hears them; pure.

Requests of CPU become weight, limits become quota and a memory bound without swap (kubernetes.io "Resource
Management for Pods and Containers"). Who is killed first when the node runs out of memory follows the quality of
service (kubernetes.io "Node-pressure Eviction", node out of memory behavior).
"""

import math

from kestrel.engine.model import Resources
from kestrel.kube.api.pod_resources import BEST_EFFORT, GUARANTEED, limits, qos_class, requests
from kestrel.kube.client import JSONObject

_OOM_GUARANTEED, _OOM_BEST_EFFORT = -997, 1000


def container_resources(pod: JSONObject, container: JSONObject, *, node_memory: int) -> Resources:
    """Return the limits of one container on a node with `node_memory` bytes."""
    capped, asked = limits(container), requests(container)
    memory = math.ceil(capped.get("memory", 0))
    return Resources(
        memory=memory,
        memory_swap=memory,
        cpu_millis=math.ceil(capped.get("cpu", 0) * 1000),
        cpu_shares=max(2, int(asked.get("cpu", 0) * 1024)),
        oom_score_adj=oom_score(pod, container, node_memory=node_memory),
    )


def oom_score(pod: JSONObject, container: JSONObject, *, node_memory: int) -> int:
    """Return how readily the kernel kills the container, from -997 to 1000."""
    kind = qos_class(pod)
    if kind == GUARANTEED:
        return _OOM_GUARANTEED
    if kind == BEST_EFFORT:
        return _OOM_BEST_EFFORT
    share = 1000 - 1000 * int(requests(container).get("memory", 0)) // max(node_memory, 1)
    return min(max(share, 3), 999)


def cgroup_parent(pod: JSONObject) -> str:
    """Return the group of cgroups the pod belongs to, by quality of service."""
    kind = qos_class(pod)
    # One level only: the engine looks for stray sandboxes exactly one level below such a group.
    return "kubepods" if kind == GUARANTEED else f"kubepods-{kind.lower()}"
