"""One command in a root filesystem that no container owns: what a build's RUN needs.

It gets a sandbox of its own and the same confinement as any container; nothing of it is recorded, because a build
that is interrupted is simply run again: it ends with us, and what is left on disk is swept at the next start.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from kestrel.engine import ranges, users
from kestrel.engine import sandbox as sandboxes
from kestrel.engine import spec as specs
from kestrel.engine.facts import identity_in
from kestrel.engine.model import (
    Container,
    ContainerConfig,
    ContainerState,
    Mount,
    Resources,
    Sandbox,
    SandboxConfig,
    Security,
)
from kestrel.engine.parts import Parts
from kestrel.engine.seccomp import profile
from kestrel.engine.shims import Session
from kestrel.linux.mounts import open_rootfs, opened
from kestrel.linux.rootfs import Rootfs
from kestrel.oci.config import ContainerDefaults

Output = Callable[[str, bytes], None]
STREAMS = {1: "stdout", 2: "stderr"}
GROUP = "build"
"""The cgroup of steps below ours, by which the sandboxes that an interrupted build leaves are known too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is at `path` in another root, which has no links in it, shown at `target`; nobody writes there."""

    target: str
    rootfs: Rootfs
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command, where it runs and as whom. `network` is bridge, host or none; `tty` gives it a terminal.

    `users` are the host's numbers of the users that wrote in the root before (empty: the host's own), who then are its
    own again; None while nobody has.
    """

    id: str
    rootfs: Rootfs
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    network: str = "bridge"
    hostname: str = ""
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    mounts: tuple[Mount, ...] = ()
    views: tuple[View, ...] = ()
    resources: Resources = field(default_factory=Resources)
    users: range | None = None
    tty: bool = False
    stdin: bool = False


async def run(parts: Parts, step: Step, output: Output) -> tuple[int, range]:
    """Run to the end and return the exit code, and the host's numbers of the users it had (empty: the host's own).

    When cancelled, nothing of it is left when this returns.
    """
    async with _started(parts, step) as (session, had):
        while (chunk := await session.read()) is not None:
            output(STREAMS[chunk[0]], chunk[1])
        return await session.wait(), had


@asynccontextmanager
async def entered(parts: Parts, step: Step) -> AsyncIterator[Session]:
    """Run and give its streams; nothing of it is left when the block ends."""
    async with _started(parts, step) as (session, _):
        yield session


def _sandbox(parts: Parts, step: Step) -> Sandbox:
    config = SandboxConfig(
        name=step.id,
        hostname=step.hostname,
        network=step.network,
        users="auto" if step.users is None else "host",
        hosts=step.hosts,
        cgroup_parent=GROUP,
        lasting=False,
    )
    plan = sandboxes.planned(parts, config)
    return replace(plan, first_id=step.users.start) if step.users else plan


@asynccontextmanager
async def _started(parts: Parts, step: Step) -> AsyncIterator[tuple[Session, range]]:
    sandbox = await sandboxes.create(parts, _sandbox(parts, step))
    stack = ExitStack()
    try:
        command = ContainerConfig(
            name=step.id,
            image="",
            command=step.argv,
            env=step.env,
            cwd=step.cwd,
            tty=step.tty,
            stdin=step.stdin,
            mounts=step.mounts,
            resources=step.resources,
            sandbox=sandbox.id,
            security=Security(user=step.user),
        )
        refusal = await users.refusal(parts.users, command, "", asked=False)
        first_id = users.of_container(sandbox, refusal)
        shown = await _shown(parts, step.views, first_id, stack)
        container = Container(
            id=sandbox.id,
            config=replace(command, mounts=(*command.mounts, *shown)),
            sandbox=sandbox.id,
            first_id=first_id,
            image_id="",
            image_digest="",
            state=ContainerState.CREATED,
            created=parts.clock.now(),
        )
        facts = specs.Facts(
            identity=identity_in(step.rootfs, step.user, ()),
            image=ContainerDefaults(),
            hostname=step.hostname,
            name_files=parts.sandbox_directory(sandbox.id),
            seccomp=profile(Security()),
            volumes={},
        )
        shim = parts.shims[sandbox.id]
        cgroup = f"{parts.sandbox_cgroup(sandbox)}/step"
        await shim.create(
            container.id,
            specs.build(container, facts),
            step.rootfs,
            terminal=step.tty,
            stdin=step.stdin,
            stdin_once=True,
            cgroup=cgroup,
        )
        session = await shim.attach(container.id, stdin=step.stdin)
        try:
            await shim.start(container.id)
            yield session, ranges.users(container.first_id)
        finally:
            await session.close()
    finally:
        stack.close()
        await asyncio.shield(sandboxes.remove(parts, sandbox.id))


async def _shown(parts: Parts, views: tuple[View, ...], first_id: int, stack: ExitStack) -> list[Mount]:
    """Open roots, detached, with the owners that a container of this range is to see; they close with `stack`.

    Each layer is id-mapped and overlay put on top, as with the container's own root: overlay itself cannot be.
    """
    if not views:
        return []
    namespace = -1
    if first_id:
        namespace = stack.enter_context(opened(await parts.zygote.user_namespace(ranges.mappings(first_id))))
    shown = []
    for view in views:
        root = stack.enter_context(opened(await asyncio.to_thread(open_rootfs, view.rootfs, user_namespace=namespace)))
        source = f"/proc/{os.getpid()}/fd/{root}/{view.path}"
        shown.append(Mount(kind="mapped", source=source, target=view.target, read_only=True))
    return shown
