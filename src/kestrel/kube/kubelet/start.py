"""Starting one container: configuration, creation, start, postStart hook, each failure in Kubernetes' own word.

Raises StartError for what went wrong before there was a container; what goes wrong afterwards leaves an ended
container that says why, and the next look at the pod deals with it like with any other end.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from kestrel.base.errors import FailedPrecondition, KestrelError
from kestrel.engine.model import Mount
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import env, hooks, mounts, sources
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.config import container_config
from kestrel.kube.kubelet.downward import Facts
from kestrel.kube.kubelet.mounts import Mounts, Ready
from kestrel.kube.kubelet.parts import Parts
from kestrel.kube.kubelet.probes import Subject
from kestrel.kube.kubelet.say import Say
from kestrel.kube.kubelet.sync import StartContainer
from kestrel.pods.model import PodContainer

LAST_WORDS_PATH = "/dev/termination-log"


class StartError(Exception):
    """A container could not be made; `reason` is the word its waiting state shows."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


async def start(
    parts: Parts, pod: JSONObject, action: StartContainer, volumes: dict[str, Ready], facts: Facts, say: Say
) -> None:
    """Create and start a container, then run its postStart hook."""
    spec = pods.container(pod, action.container)
    assert spec is not None
    try:
        read = await sources.read(parts.client, pods.namespace(pod), env.needed(spec))
        variables = env.environment(pod, spec, read, facts, services=parts.settings.services)
        stage = parts.settings.paths.stage(pods.uid(pod), action.container)
        mounted = mounts.container_mounts(spec, volumes, stage, lambda text: env.expand(text, variables))
    except (KestrelError, OSError) as error:
        raise _refused("CreateContainerConfigError", error, spec, say) from error
    with contextlib.closing(mounted):
        container = await _create(parts, pod, spec, action, variables, mounted, say)
        try:
            await parts.runtime.start_container(container.id)
        except KestrelError as error:
            say.warning("Failed", f"Error: {_sentence(error)}", container=spec)
            ended = parts.runtime.pod(pods.uid(pod)).newest(action.container)
            if ended is None or not ended.exited:
                await parts.runtime.remove_container(container.id)
                raise StartError("RunContainerError", _sentence(error)) from error
            return
    say.normal("Started", f"Started container {action.container}", container=spec)
    await _post_start(parts, pod, spec, container, facts, say)


async def _create(
    parts: Parts,
    pod: JSONObject,
    spec: JSONObject,
    action: StartContainer,
    variables: dict[str, str],
    mounted: Mounts,
    say: Say,
) -> PodContainer:
    try:
        await asyncio.to_thread(_make_files, parts, pod, action)
        config = container_config(
            pod,
            spec,
            parts.settings,
            attempt=action.attempt,
            sandbox=action.sandbox,
            image=action.image,
            env=variables,
            mounts=_with_last_words(parts, pod, spec, action, mounted.mounts),
            processes_of=_target(parts, pod, spec),
        )
    except (KestrelError, OSError) as error:
        raise _refused("CreateContainerConfigError", error, spec, say) from error
    try:
        container = await parts.runtime.create_container(config)
    except KestrelError as error:
        raise _refused("CreateContainerError", error, spec, say) from error
    say.normal("Created", f"Created container: {action.container}", container=spec)
    return container


def _target(parts: Parts, pod: JSONObject, spec: JSONObject) -> str:
    """Return the id of the running container whose processes an ephemeral container is to see, if it names one."""
    wanted = str(spec.get("targetContainerName") or "")
    if not wanted:
        return ""
    found = parts.runtime.pod(pods.uid(pod)).newest(wanted)
    if found is None or not found.running:
        raise FailedPrecondition(f"the target container {wanted} is not running")
    return found.id


def _make_files(parts: Parts, pod: JSONObject, action: StartContainer) -> None:
    paths, uid = parts.settings.paths, pods.uid(pod)
    paths.log(pod, action.container, action.attempt).parent.mkdir(parents=True, exist_ok=True)
    words = paths.last_words(uid, action.container, action.attempt)
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_bytes(b"")
    words.chmod(0o666)  # the container's user, whoever it is, writes here


def _with_last_words(
    parts: Parts, pod: JSONObject, spec: JSONObject, action: StartContainer, found: Sequence[Mount]
) -> list[Mount]:
    words = parts.settings.paths.last_words(pods.uid(pod), action.container, action.attempt)
    target = str(spec.get("terminationMessagePath") or LAST_WORDS_PATH)
    return [*found, Mount(target=target, source=str(words))]


async def _post_start(
    parts: Parts, pod: JSONObject, spec: JSONObject, container: PodContainer, facts: Facts, say: Say
) -> None:
    handler = hooks.hook(spec, hooks.POST_START)
    if handler is None:
        return
    answer = await hooks.run(parts.runtime, handler, Subject(id=container.id, container=spec, address=facts.pod_ip))
    if not answer.good:
        say.warning("FailedPostStartHook", f"PostStartHook failed: {answer.text}", container=spec)
        say.normal("Killing", "FailedPostStartHook", container=spec)
        await parts.runtime.stop_container(container.id, grace=pods.grace(pod))


def _refused(reason: str, error: KestrelError | OSError, spec: JSONObject, say: Say) -> StartError:
    message = _sentence(error)
    say.warning("Failed", f"Error: {message}", container=spec)
    return StartError(reason, message)


def _sentence(error: KestrelError | OSError) -> str:
    hint = getattr(error, "hint", None)
    return f"{error} ({hint})" if hint else str(error)
