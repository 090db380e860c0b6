"""Where the kubelet keeps a pod's files; pure.

`logs` outlives nothing but the pod and has the layout of a real node's /var/log/pods. `state` holds emptyDirs and last
words, which a restart of the daemon must find again. `volatile` should be memory: Secrets and tokens are written there
and never to disk; after a reboot they are simply written anew.
"""

from dataclasses import dataclass
from pathlib import Path

from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The three roots of the kubelet's files."""

    logs: Path
    state: Path
    volatile: Path

    def pod_logs(self, pod: JSONObject) -> Path:
        """Return the directory of a pod's logs."""
        return self.logs / log_directory(pods.namespace(pod), pods.name(pod), pods.uid(pod))

    def log(self, pod: JSONObject, container: str, attempt: int) -> Path:
        """Return the log file of one start of a container."""
        return self.pod_logs(pod) / container / f"{attempt}.log"

    def pod_state(self, uid: str) -> Path:
        """Return the directory of a pod's files that last as long as the pod."""
        return self.state / uid

    def pod_volatile(self, uid: str) -> Path:
        """Return the directory of a pod's files that are made from the API."""
        return self.volatile / uid

    def volume(self, uid: str, name: str) -> Path:
        """Return the directory of an emptyDir."""
        return self.pod_state(uid) / "volumes" / name

    def projected(self, uid: str, name: str) -> Path:
        """Return the directory of a configMap, secret, downwardAPI or projected volume."""
        return self.pod_volatile(uid) / "volumes" / name

    def last_words(self, uid: str, container: str, attempt: int) -> Path:
        """Return the file that a container sees as its terminationMessagePath."""
        return self.pod_state(uid) / "containers" / container / f"{attempt}.message"

    def stage(self, uid: str, container: str) -> Path:
        """Return where a container's sub-paths are mounted until it has started."""
        return self.pod_state(uid) / "containers" / container / "subpaths"


def log_directory(namespace: str, name: str, uid: str) -> str:
    """Return the name of a pod's log directory."""
    return f"{namespace}_{name}_{uid}"
