"""`kestrel explain`: a container, each container of a pod, or one that `run` would make with the same words."""

from typing import Any

from kestrel.base.errors import NotFound
from kestrel.control.containers import run_config
from kestrel.control.requests import RunRequest
from kestrel.control.services import Emit, Services, Verbs
from kestrel.engine import Container
from kestrel.pods.model import CONTAINER_NAME, POD_NAME, POD_NAMESPACE


class ExplainRequest(RunRequest, frozen=True):
    """`kestrel explain`: `image` is whatever was named; `told` says that flags or a command of `run` came with it."""

    told: bool = False


async def explain(services: Services, request: ExplainRequest, _emit: Emit) -> Any:
    """Return the sentences by the name of what they are about."""
    engine, wanted = services.engine, request.image
    if request.told:
        return {wanted: await engine.explain_new(run_config(request))}
    pod = _of_pod(engine.containers(), wanted)
    if pod:
        return {name: await engine.explain(identity) for name, identity in pod.items()}
    try:
        return {wanted: await engine.explain(wanted)}
    except NotFound as missing:
        try:
            await services.images.resolve(wanted)
        except NotFound:
            raise NotFound(
                f"no such container, pod or image: {wanted}", hint=missing.hint or "see `kestrel ps -a`"
            ) from None
    return {wanted: await engine.explain_new(run_config(request))}


def _of_pod(containers: list[Container], wanted: str) -> dict[str, str]:
    """Return the newest start of each container of a pod, by name; `wanted` is `pod/NAME` or `NAMESPACE/NAME`."""
    namespace, slash, name = wanted.rpartition("/")
    if not slash:
        return {}
    found = {}
    for container in sorted(containers, key=lambda c: c.created):
        labels = container.config.labels
        if labels.get(POD_NAME) == name and namespace in ("pod", labels[POD_NAMESPACE]):
            found[f"{labels[POD_NAMESPACE]}/{name} {labels[CONTAINER_NAME]}"] = container.id
    return dict(sorted(found.items()))


VERBS: Verbs = {"explain": (ExplainRequest, explain)}
