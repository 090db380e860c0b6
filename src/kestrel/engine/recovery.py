"""After a start of the daemon: take back every sandbox whose shim lives, and bury the others properly.

Shims keep running while no daemon does, and tell whoever connects next what ended meanwhile. What has no shim any more
cannot have processes either, except ones that outlived a killed shim: their cgroups are emptied here.
"""

import asyncio
import re
import shutil
from collections.abc import Iterator

from kestrel.base.errors import FailedPrecondition, KestrelError
from kestrel.base.ids import short
from kestrel.engine import remove, start, step
from kestrel.engine import sandbox as sandboxes
from kestrel.engine.model import Container, ContainerState, Sandbox, SandboxState
from kestrel.engine.parts import Parts
from kestrel.engine.shims import Shim
from kestrel.linux import cgroups

SANDBOX_GROUP = re.compile(r"[0-9a-f]{12}")


async def recover(parts: Parts) -> None:
    """Bring memory, records and the host in line."""
    for sandbox in list(parts.store.sandboxes.values()):
        if sandbox.state is SandboxState.READY:
            await _adopt(parts, sandbox)
    for container in list(parts.store.containers.values()):
        await _finish(parts, container)
    ready = {s.id for s in parts.store.sandboxes.values() if s.state is SandboxState.READY}
    await parts.network.recover(ready)
    await asyncio.to_thread(_remove_strays, parts, {short(identity) for identity in ready})


async def _adopt(parts: Parts, sandbox: Sandbox) -> None:
    try:
        shim = await Shim.connect(parts.sandbox_directory(sandbox.id))
    except KestrelError:
        await sandboxes.gone(parts, sandbox, reason=sandboxes.KILLED)
        if not _came_up(sandbox):
            parts.store.drop_sandbox(sandbox.id)
        return
    parts.shims[sandbox.id] = shim
    sandboxes.watch(parts, sandbox.id, shim)
    if sandbox.config.cgroup_parent == step.GROUP or not _came_up(sandbox):
        await sandboxes.remove(parts, sandbox.id)  # its build ended with the daemon, or nobody was told of it
    else:
        await _end_half_started(parts, sandbox.id, shim)


def _came_up(sandbox: Sandbox) -> bool:
    """Whether a sandbox was made to the end: its shim is recorded when it has its network and its files."""
    return sandbox.shim_pid != 0


async def _end_half_started(parts: Parts, sandbox: str, shim: Shim) -> None:
    """End what waits for a `start` that will not come: nobody was told that it runs, and its program never did."""
    waiting = {status.container_id for status in await shim.states() if status.status == "created"}
    for container in parts.store.containers_of(sandbox):
        if container.id in waiting and container.state is ContainerState.RUNNING:
            await start.failed(parts, container, FailedPrecondition("the daemon was killed while this was started"))


async def _finish(parts: Parts, container: Container) -> None:
    """Do what remained to be done for a container with a sandbox of its own, where a daemon was killed before it."""
    if container.config.sandbox is not None or container.state is ContainerState.RUNNING:
        return
    if container.state is ContainerState.EXITED:
        await remove.settle(parts, container)
    elif container.config.auto_remove:
        await remove.remove(parts, container.id)  # whoever ran it has been told that it failed
    elif container.sandbox in parts.store.sandboxes:
        await sandboxes.remove(parts, container.sandbox)


def _remove_strays(parts: Parts, alive: set[str]) -> None:
    """Remove run-time directories and cgroups of sandboxes that nobody knows any more."""
    directory = parts.settings.run / "sandboxes"
    if directory.is_dir():
        for entry in directory.iterdir():
            if entry.name not in alive:
                shutil.rmtree(entry, ignore_errors=True)
    for path in _sandbox_groups(cgroups.detect(), parts.settings.cgroup):
        if path.rpartition("/")[2] not in alive:
            sandboxes.clear_cgroup(path)


def _sandbox_groups(hierarchy: cgroups.Hierarchy, top: str) -> Iterator[str]:
    """Yield the groups of sandboxes, known by their names, at any depth below `top`."""
    for path in hierarchy.children(top):
        if SANDBOX_GROUP.fullmatch(path.rpartition("/")[2]):
            yield path
        else:
            yield from _sandbox_groups(hierarchy, path)
