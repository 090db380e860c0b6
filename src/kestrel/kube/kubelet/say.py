"""A pod's events: one short way to tell people what happens to it or to one of its containers."""

from kestrel.kube.client import JSONObject
from kestrel.kube.client.recorder import NORMAL, WARNING, Recorder
from kestrel.kube.kubelet import pod as pods


class Say:
    """Records events about one pod. `container` names the part of the pod the event is about."""

    def __init__(self, recorder: Recorder, pod: JSONObject) -> None:
        self._recorder = recorder
        self.pod = pod

    def normal(self, reason: str, message: str, *, container: JSONObject | None = None) -> None:
        """Tell what went as it should."""
        self._recorder.event(self.pod, NORMAL, reason, message, path=self._path(container))

    def warning(self, reason: str, message: str, *, container: JSONObject | None = None) -> None:
        """Tell what went wrong: the cause, in one sentence."""
        self._recorder.event(self.pod, WARNING, reason, message, path=self._path(container))

    def _path(self, container: JSONObject | None) -> str:
        if container is None:
            return ""
        kind = "initContainers" if container in pods.inits(self.pod) else "containers"
        return f"spec.{kind}{{{container['name']}}}"
