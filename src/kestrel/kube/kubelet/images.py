"""Having a container's image here: pull policies, and failures said in Kubernetes' words.

The policy decides whether to look, to fetch or to refuse (kubernetes.io "Images", image pull policy). A failure becomes
a `Failure` with the reason words that `kubectl get pods` shows: ErrImagePull, from a moment later ImagePullBackOff,
ErrImageNeverPull, InvalidImageName.
"""

import time
from dataclasses import dataclass

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.base.units import print_duration
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet.backoff import Failure, doubling
from kestrel.kube.kubelet.runtime import PodRuntime
from kestrel.kube.kubelet.say import Say
from kestrel.oci.reference import Reference
from kestrel.pods.model import ImageInfo

SHOWN = 2.0
"""Seconds for which ErrImagePull stands before it reads ImagePullBackOff."""


@dataclass(frozen=True, slots=True)
class PullError(Exception):
    """The image cannot be had now."""

    reason: str
    message: str


def policy(container: JSONObject) -> str:
    """Return Always, IfNotPresent or Never; by default Always for the tag `latest` or none."""
    given = container.get("imagePullPolicy")
    if given:
        return str(given)
    name = str(container.get("image", "")).rpartition("/")[2]
    return "Always" if "@" not in name and (":" not in name or name.endswith(":latest")) else "IfNotPresent"


async def ensure(runtime: PodRuntime, container: JSONObject, say: Say, *, credentials: object = None) -> ImageInfo:
    """Return the container's image, fetched if its policy says so. Raises PullError."""
    name, spec = str(container.get("image", "")), container
    try:
        Reference.parse(name)
        present = await runtime.image(name)
    except InvalidArgument as error:
        say.warning("InspectFailed", f'Failed to apply default image tag "{name}": {error}', container=spec)
        raise PullError("InvalidImageName", f'Failed to apply default image tag "{name}": {error}') from error
    wanted = policy(container)
    if wanted == "Never" and present is None:
        message = f'Container image "{name}" is not present with pull policy of Never'
        say.warning("ErrImageNeverPull", message, container=spec)
        raise PullError("ErrImageNeverPull", message)
    if present is not None and wanted != "Always":
        say.normal("Pulled", f'Container image "{name}" already present on machine', container=spec)
        return present
    return await _pull(runtime, name, spec, say, credentials)


async def _pull(runtime: PodRuntime, name: str, spec: JSONObject, say: Say, credentials: object) -> ImageInfo:
    say.normal("Pulling", f'Pulling image "{name}"', container=spec)
    begun = time.monotonic()
    try:
        image = await runtime.pull(name, credentials=credentials)
    except KestrelError as error:
        text = f"{error} ({error.hint})" if error.hint else str(error)
        say.warning("Failed", f'Failed to pull image "{name}": {text}', container=spec)
        say.warning("Failed", "Error: ErrImagePull", container=spec)
        raise PullError("ErrImagePull", text) from error
    took = print_duration(time.monotonic() - begun)
    say.normal(
        "Pulled",
        f'Successfully pulled image "{name}" in {took}. Image size: {image.size} bytes.',
        container=spec,
    )
    return image


def failed(error: PullError, before: Failure | None, image: str, now: float) -> Failure:
    """Return what is remembered of a failure, with the time of the next attempt."""
    times = before.times + 1 if before is not None else 1
    if error.reason in ("ErrImageNeverPull", "InvalidImageName"):
        return Failure(reason=error.reason, message=error.message, at=now, retry=now + doubling(times), times=times)
    return Failure(
        reason=error.reason,
        message=error.message,
        at=now,
        retry=now + doubling(times),
        times=times,
        later="ImagePullBackOff",
        later_message=f'Back-off pulling image "{image}": {error.reason}: {error.message}',
        later_at=now + SHOWN,
    )
