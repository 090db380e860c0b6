"""Starting a container: a sandbox if it needs one of its own, the spec, the shim's create, and go.

Nothing may be lost in between: streams are attached before the process runs. A start that fails leaves an exited
container that says why, as docker and the kubelet show it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from kestrel.base.errors import Conflict, FailedPrecondition, KestrelError
from kestrel.engine import sandbox as sandboxes
from kestrel.engine import spec as specs
from kestrel.engine.create import private
from kestrel.engine.facts import gather
from kestrel.engine.model import Container, ContainerState, Sandbox, SandboxState
from kestrel.engine.parts import Parts
from kestrel.engine.shims import LogFile, Session, Shim

CANNOT_RUN = 128  # containerd's exit code for a process that never was


async def start(parts: Parts, wanted: str) -> Container:
    """Start a container and return it; its streams go to its log.

    Raises FailedPrecondition when it runs already, and the runtime's own sentence when it cannot be started.
    """
    identity = parts.store.container(wanted).id
    async with _starting(parts, identity) as (container, shim):
        await _go(parts, container, shim)
    return parts.store.containers.get(identity, container)


async def start_attached(parts: Parts, wanted: str) -> Session:
    """Start a container and return a session that sees its output from the first byte. Raises as `start`."""
    async with _starting(parts, parts.store.container(wanted).id) as (container, shim):
        session = await attach(parts, container)
        try:
            await _go(parts, container, shim)
        except BaseException:
            await session.close()
            raise
    return session


async def attach(parts: Parts, container: Container) -> Session:
    """Connect to the streams of a container's own process. Raises FailedPrecondition when it has none."""
    shim = parts.shim(container)
    if shim is None:
        raise FailedPrecondition(f"container {container.config.name} is not running")

    return await shim.attach(container.id, stdin=container.config.stdin)


@asynccontextmanager
async def _starting(parts: Parts, identity: str) -> AsyncIterator[tuple[Container, Shim]]:
    """Make a container ready to go; if that or the body fails, leave it exited with the reason."""
    async with parts.locks[identity]:
        container = parts.store.container(identity)
        if container.state is ContainerState.RUNNING:
            raise FailedPrecondition(f"container {container.config.name} is running already")
        try:
            pid, shim = await _ready(parts, container)
            container = _running(container, pid, parts.clock.now())
            yield container, shim
        except KestrelError as error:
            error.context["stage"] = "start"
            await failed(parts, container, error)
            raise


async def _go(parts: Parts, container: Container, shim: Shim) -> None:
    # Recorded before the process runs: it may end, and its end be recorded, before `start` has returned.
    parts.store.save_container(container)
    await shim.start(container.id)
    parts.tell("start", container.sandbox, container.id)


async def _ready(parts: Parts, container: Container) -> tuple[int, Shim]:
    image = await parts.images.resolve(container.image_id)
    await parts.images.ensure_unpacked(image)  # after a power cut layers are made again from their blobs
    sandbox = await _sandbox(parts, container)
    shim = parts.shims.get(sandbox.id)
    if shim is None:
        raise FailedPrecondition(f"sandbox {sandbox.config.name} is not ready: {sandbox.reason or 'stopped'}")
    rootfs = parts.snapshots.rootfs(container.id)
    spec = specs.build(container, await asyncio.to_thread(gather, parts, container, sandbox, image, rootfs))
    config = container.config
    pid = await shim.create(
        container.id,
        spec,
        rootfs,
        log=LogFile(path=container.log_path, max_size=config.log_max_size, max_files=config.log_max_files),
        terminal=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        cgroup=f"{parts.sandbox_cgroup(sandbox)}/{container.id[:12]}",
    )
    return pid, shim


def _running(container: Container, pid: int, moment: datetime) -> Container:
    """Return the record of a container that runs, nothing left in it of an earlier life."""
    return replace(
        container,
        state=ContainerState.RUNNING,
        started=moment,
        finished=None,
        pid=pid,
        exit_code=None,
        oom_killed=False,
        reason="",
        message="",
    )


async def _sandbox(parts: Parts, container: Container) -> Sandbox:
    """Return the sandbox to run in; a private one is made anew for each start."""
    if container.config.sandbox is not None:
        return parts.store.sandbox(container.sandbox)
    if container.sandbox in parts.store.sandboxes:
        await sandboxes.remove(parts, container.sandbox)
    try:
        return await sandboxes.create(parts, coming(container))
    except Conflict as error:
        raise _with_owner(parts, error) from error


def coming(container: Container) -> Sandbox:
    """Return the sandbox that a container with one of its own gets when it starts."""
    config = private(container.config, container.id)
    return Sandbox(
        id=container.sandbox,
        config=config,
        state=SandboxState.STOPPED,
        created=container.created,
        ports=config.ports,
        first_id=container.first_id,
    )


def _with_owner(parts: Parts, error: Conflict) -> Conflict:
    """Say who has a port in the user's words: the network knows sandboxes, the user containers."""
    owner = str(error.context.get("owner", ""))
    names = [c.config.name for c in parts.store.containers_of(owner)]
    if not names:
        return error
    message = error.message.replace(f"sandbox {owner[:12]}", f"container {', '.join(names)}")
    return Conflict(message, hint=error.hint, **error.context)


async def failed(parts: Parts, container: Container, error: KestrelError) -> None:
    """Leave an exited container that says why, and no process, sandbox or mount of the attempt."""
    if container.config.sandbox is None:
        if container.sandbox in parts.store.sandboxes:
            await sandboxes.remove(parts, container.sandbox)
    else:
        await discard(parts.shim(container), container.id)
    ended = replace(
        container,
        state=ContainerState.EXITED,
        finished=parts.clock.now(),
        exit_code=CANNOT_RUN,
        reason="ContainerCannotRun",
        message=f"{error.message} ({error.hint})" if error.hint else error.message,
    )
    parts.store.save_container(ended)
    parts.tell("exit", container.sandbox, container.id, CANNOT_RUN)


async def discard(shim: Shim | None, container: str) -> None:
    """Make a shim forget a container, if it ever knew it."""
    if shim is None:
        return
    try:
        await shim.delete(container, force=True)
    except KestrelError:
        pass  # it never came so far as to exist there
