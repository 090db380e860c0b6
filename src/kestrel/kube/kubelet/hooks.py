"""Lifecycle hooks: what a container wants done right after its start and right before its end.

A hook is asked once, as a probe is, with all the time it needs (postStart) or that is left (preStop).
"""

from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import probes
from kestrel.kube.kubelet.probes import Answer, Subject
from kestrel.kube.kubelet.runtime import PodRuntime

POST_START, PRE_STOP = "postStart", "preStop"
NO_LIMIT = 24 * 3600.0


def hook(container: JSONObject, kind: str) -> JSONObject | None:
    """Return the container's hook of that kind."""
    found = (container.get("lifecycle") or {}).get(kind)
    return dict(found) if found else None


async def run(runtime: PodRuntime, handler: JSONObject, subject: Subject, *, timeout: float = NO_LIMIT) -> Answer:
    """Run a hook to its end."""
    return await probes.ask(runtime, handler, subject, timeout=timeout)
