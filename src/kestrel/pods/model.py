"""What is known on this host of a pod: values read from labels, never from a second book.

The labels are those a real kubelet gives its containers, so tools that look for them find them, and a daemon that
starts again finds its pods by nothing but what the engine has stored.
"""

from dataclasses import dataclass
from datetime import datetime

from kestrel.engine.model import Container, ContainerState, Sandbox, SandboxState

POD_UID = "io.kubernetes.pod.uid"
POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
CONTAINER_NAME = "io.kubernetes.container.name"
ATTEMPT = "io.kubernetes.container.restartCount"
SANDBOX_ATTEMPT = "io.kubernetes.sandbox.attempt"

SHIM_KILLED = "ShimKilled"
"""The engine's reason for a container that ended because the shim of its sandbox did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSandbox:
    """One sandbox of a pod; a pod has had several when its shim was killed or the machine was started again."""

    id: str
    uid: str
    name: str
    namespace: str
    attempt: int
    ready: bool
    created: datetime
    address: str = ""
    reason: str = ""

    @classmethod
    def of(cls, sandbox: Sandbox) -> "PodSandbox":
        """Read a sandbox of the engine that carries a pod's labels; raises KeyError when it does not."""
        labels = sandbox.config.labels
        return cls(
            id=sandbox.id,
            uid=labels[POD_UID],
            name=labels[POD_NAME],
            namespace=labels[POD_NAMESPACE],
            attempt=int(sandbox.config.annotations.get(SANDBOX_ATTEMPT, "0")),
            ready=sandbox.state is SandboxState.READY,
            created=sandbox.created,
            address=sandbox.address,
            reason=sandbox.reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodContainer:
    """One start of one container of a pod. `attempt` counts from 0; `image_id` is the configuration's digest."""

    id: str
    name: str
    attempt: int
    sandbox: str
    state: ContainerState
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    image: str = ""
    image_id: str = ""
    image_digest: str = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    log_path: str = ""
    memory_limit: int = 0

    @classmethod
    def of(cls, container: Container) -> "PodContainer":
        """Read a container of the engine that carries a pod's labels; raises KeyError when it does not."""
        config = container.config
        return cls(
            id=container.id,
            name=config.labels[CONTAINER_NAME],
            attempt=int(config.annotations.get(ATTEMPT, "0")),
            sandbox=container.sandbox,
            state=container.state,
            created=container.created,
            started=container.started,
            finished=container.finished,
            image=config.image,
            image_id=container.image_id,
            image_digest=container.image_digest,
            exit_code=container.exit_code,
            reason=container.reason,
            message=container.message,
            log_path=container.log_path,
            memory_limit=config.resources.memory,
        )

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.state is ContainerState.RUNNING

    @property
    def exited(self) -> bool:
        """Whether it has ended."""
        return self.state is ContainerState.EXITED


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """All that this host has of one pod, the newest first."""

    uid: str
    name: str = ""
    namespace: str = ""
    sandboxes: tuple[PodSandbox, ...] = ()
    containers: tuple[PodContainer, ...] = ()

    @property
    def sandbox(self) -> PodSandbox | None:
        """The newest sandbox, if it is ready.

        One whose containers ended with their shim is not, even while the engine is still clearing it away.
        """
        if not self.sandboxes or not self.sandboxes[0].ready:
            return None
        newest = self.sandboxes[0]
        lost = any(c.sandbox == newest.id and c.reason == SHIM_KILLED for c in self.containers)
        return None if lost else newest

    def attempts(self, name: str) -> tuple[PodContainer, ...]:
        """Every remembered start of the container called `name`, the newest first."""
        return tuple(container for container in self.containers if container.name == name)

    def newest(self, name: str) -> PodContainer | None:
        """The latest start of the container called `name`."""
        return next((container for container in self.containers if container.name == name), None)

    def __bool__(self) -> bool:
        return bool(self.sandboxes or self.containers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Which start of which container of which pod: what labels, names and log paths are made of."""

    uid: str
    pod: str
    namespace: str
    container: str
    number: int

    @property
    def engine_name(self) -> str:
        """The container's name in the engine, in the form docker shows under a kubelet."""
        return f"k8s_{self.container}_{self.pod}_{self.namespace}_{self.uid}_{self.number}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels that make the container this pod's."""
        return {
            POD_UID: self.uid,
            POD_NAME: self.pod,
            POD_NAMESPACE: self.namespace,
            CONTAINER_NAME: self.container,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEvent:
    """Something happened to a pod's sandbox or container; look at its record. `action` is the engine's word."""

    uid: str
    action: str
    container: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """An image that is present: what a pod's containers need of it. `digest` is the manifest's; `size` in bytes."""

    id: str
    digest: str
    names: tuple[str, ...]
    size: int
    user: str = ""
    stop_signal: str = ""
