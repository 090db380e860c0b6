"""Building blocks of the kubelet's tests: pods, records of containers, and views of both."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from kestrel.engine.model import ContainerState
from kestrel.kube.kubelet.sync import ContainerMemory, View
from kestrel.pods.model import ImageInfo, PodContainer, PodRecord, PodSandbox

NOW = 1_800_000_000.0
IMAGE = ImageInfo(id="sha256:" + "a" * 64, digest="sha256:" + "b" * 64, names=("busybox:latest",), size=1)


def moment(seconds: float) -> datetime:
    """Return the test's own time, `seconds` from its now."""
    return datetime.fromtimestamp(NOW + seconds, UTC)


def pod(*containers: str, policy: str = "Always", inits=(), status=None, metadata=None, **spec):
    """Return a Pod with app containers of these names; `inits` are names, a leading `+` makes a sidecar."""
    made = [
        {"name": name.lstrip("+"), "image": "busybox"} | ({"restartPolicy": "Always"} if name.startswith("+") else {})
        for name in inits
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", **(metadata or {})},
        "spec": {
            "containers": [{"name": name, "image": "busybox"} for name in containers or ("app",)],
            "restartPolicy": policy,
            "nodeName": "node",
            **({"initContainers": made} if made else {}),
            **spec,
        },
        "status": status or {},
    }


def sandbox(number: int = 0, *, ready: bool = True, reason: str = "") -> PodSandbox:
    """Return the pod's sandbox of that attempt."""
    return PodSandbox(
        id=f"s{number}", uid="u1", name="web", namespace="default", attempt=number, ready=ready, created=moment(-100),
        address="10.88.0.5" if ready else "", reason=reason,
    )  # fmt: skip


def container(
    name: str = "app", state: str = "running", *, attempt: int = 0, exit_code: int | None = None, ended: float = 0,
    began: float = -50, sandbox: str = "s0", reason: str = "", message: str = "",
) -> PodContainer:  # fmt: skip
    """Return one start of a container: `running`, `created` or `exited`."""
    gone = state == "exited"
    return PodContainer(
        id=f"{name}-{attempt}", name=name, attempt=attempt, sandbox=sandbox, state=ContainerState(state),
        created=moment(began), started=moment(began) if state != "created" else None,
        finished=moment(ended) if gone else None, image="busybox", image_id=IMAGE.id, image_digest=IMAGE.digest,
        exit_code=(exit_code or 0) if gone else None, reason=reason, message=message,
    )  # fmt: skip


def record(*containers: PodContainer, sandboxes=None) -> PodRecord:
    """Return what the host has: one ready sandbox unless told otherwise."""
    ordered = sorted(containers, key=lambda c: c.attempt, reverse=True)
    return PodRecord(
        uid="u1", name="web", namespace="default",
        sandboxes=tuple(sandboxes if sandboxes is not None else (sandbox(),)), containers=tuple(ordered),
    )  # fmt: skip


def view(pod, record=None, *, now: float = 0, images=(), memory=None, **more) -> View:
    """Return a view in which the volumes are ready and these containers' images are here."""
    known = {name: ContainerMemory(image=IMAGE) for name in images} | (memory or {})
    more.setdefault("volumes_ready", True)
    return View(pod=pod, record=record or PodRecord(uid="u1"), now=NOW + now, memory=known, **more)


@pytest.fixture
def make():
    """Return the building blocks above."""
    return SimpleNamespace(
        pod=pod, sandbox=sandbox, container=container, record=record, view=view, moment=moment, NOW=NOW, IMAGE=IMAGE
    )
