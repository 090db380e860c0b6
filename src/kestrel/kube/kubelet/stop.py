"""Ending one container: the event, the preStop hook, the stop signal, and SIGKILL when time is up.

The hook runs within the grace period (kubernetes.io "Container Lifecycle Hooks"); when it has used up everything, two
seconds are left for the process, as upstream gives.
"""

from kestrel.base.errors import KestrelError
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import hooks
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.parts import Parts
from kestrel.kube.kubelet.probes import Subject
from kestrel.kube.kubelet.say import Say
from kestrel.kube.kubelet.sync import LEAST_GRACE, StopContainer


async def stop(parts: Parts, pod: JSONObject, action: StopContainer, address: str, say: Say, *, again: bool) -> None:
    """End a container by the action's deadline; `again` says that this only hastens a stop that has begun."""
    spec = pods.container(pod, action.container)
    left = action.deadline - parts.now()
    if not again and spec is not None:
        text = f"Container {action.container} {action.why}" if action.why else f"Stopping container {action.container}"
        say.normal("Killing", text, container=spec)
        handler = hooks.hook(spec, hooks.PRE_STOP)
        if handler is not None and left > 0:
            subject = Subject(id=action.id, container=spec, address=address)
            answer = await hooks.run(parts.runtime, handler, subject, timeout=left)
            if not answer.good:
                say.warning("FailedPreStopHook", f"PreStopHook failed: {answer.text}", container=spec)
            left = max(action.deadline - parts.now(), LEAST_GRACE)
    try:
        await parts.runtime.stop_container(action.id, grace=max(left, 0.0))
    except KestrelError as error:
        say.warning("FailedKillPod", f"error killing pod: container {action.container}: {error}", container=spec)
        raise
