"""A sandbox's life: a shim that pins its namespaces, a place in the network, and an end that leaves nothing.

The order is the point. The record is written first, so that whatever a crash leaves behind has an owner; then the
shim, then the network. Ending goes backwards, and every step may be repeated.
"""

import asyncio
import logging
import shutil
from dataclasses import replace

from kestrel.base.errors import KestrelError
from kestrel.base.files import private_directory
from kestrel.base.ids import new_id
from kestrel.engine import finish, nameservice
from kestrel.engine.model import Sandbox, SandboxConfig, SandboxState
from kestrel.engine.parts import Parts
from kestrel.engine.ranges import mappings
from kestrel.engine.shims import Exited, SandboxRequest, Shim
from kestrel.engine.users import of_sandbox
from kestrel.linux import cgroups

KILLED = "the shim was killed"
UNPRIVILEGED = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
"""In a network of its own anybody may bind any port and ping, as with docker and containerd."""
log = logging.getLogger(__name__)


def planned(parts: Parts, config: SandboxConfig, identity: str | None = None) -> Sandbox:
    """Return a sandbox that is not made yet, with its range of users if it has one. Raises when that cannot be had."""
    identity = identity or new_id()
    return Sandbox(
        id=identity,
        config=config,
        state=SandboxState.STOPPED,
        created=parts.clock.now(),
        ports=config.ports,
        first_id=of_sandbox(parts.users, config, identity, parts.store.first_ids()),
    )


async def create(parts: Parts, plan: Sandbox) -> Sandbox:
    """Make a sandbox as planned and return it ready. On failure nothing of it remains."""
    sandbox = replace(plan, state=SandboxState.READY, created=parts.clock.now())
    parts.store.save_sandbox(sandbox)
    try:
        sandbox = await _bring_up(parts, sandbox)
    except BaseException:
        await asyncio.shield(_give_up(parts, sandbox))
        raise
    parts.tell("sandbox-start", sandbox.id)
    return sandbox


async def _give_up(parts: Parts, sandbox: Sandbox) -> None:
    """End the shim of a sandbox that did not come up, which nothing else would, and forget the sandbox."""
    shim = parts.shims.get(sandbox.id)
    if shim is not None:
        try:
            await shim.shutdown()
        except KestrelError as error:
            log.warning("sandbox %s: its shim was not shut down: %s", sandbox.config.name, error)
    await tear_down(parts, sandbox)
    parts.store.drop_sandbox(sandbox.id)


async def _bring_up(parts: Parts, sandbox: Sandbox) -> Sandbox:
    config = sandbox.config
    directory = private_directory(parts.sandbox_directory(sandbox.id))
    shim = await parts.zygote.shim(
        SandboxRequest(
            id=sandbox.id,
            directory=str(directory),
            hostname=nameservice.hostname(sandbox),
            host_network=config.network == "host",
            host_ipc=config.host_ipc,
            host_pid=config.host_pid,
            share_pid=config.share_pid,
            sysctls=(UNPRIVILEGED if config.network != "host" else {}) | dict(config.sysctls),
            cgroup=parts.sandbox_cgroup(sandbox),
            uid_mappings=mappings(sandbox.first_id) if sandbox.first_id else (),
            gid_mappings=mappings(sandbox.first_id) if sandbox.first_id else (),
        ),
        lasting=config.lasting,
    )
    parts.shims[sandbox.id] = shim
    resolver = ""
    if config.network == "bridge":
        endpoint = await parts.network.connect(sandbox.id, shim.netns, names=_names(sandbox), ports=config.ports)
        sandbox = replace(sandbox, address=endpoint.address, ports=endpoint.ports)
        resolver = endpoint.resolver
    sandbox = replace(sandbox, shim_pid=shim.pid)
    nameservice.write(sandbox, directory, resolver)
    parts.store.save_sandbox(sandbox)
    watch(parts, sandbox.id, shim)
    return sandbox


def _names(sandbox: Sandbox) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*sandbox.config.names, nameservice.hostname(sandbox))))


async def stop(parts: Parts, identity: str) -> None:
    """End a sandbox and whatever runs in it; its record stays until `remove`. Stopping twice is fine."""
    sandbox = parts.store.sandbox(identity)
    if sandbox.state is SandboxState.STOPPED and identity not in parts.shims:
        return
    parts.ending.add(identity)
    try:
        shim = parts.shims.get(identity)
        if shim is not None:
            for problem in await shim.shutdown():
                log.warning("sandbox %s: %s", sandbox.config.name, problem)
        watcher = parts.watchers.pop(identity, None)
        if watcher is not None and watcher is not asyncio.current_task():
            await asyncio.wait([watcher])
        await gone(parts, sandbox, reason="")
    finally:
        parts.ending.discard(identity)


async def remove(parts: Parts, identity: str) -> None:
    """Stop a sandbox and forget it."""
    await stop(parts, identity)
    parts.store.drop_sandbox(identity)
    parts.locks.pop(identity, None)


def watch(parts: Parts, identity: str, shim: Shim) -> None:
    """Follow a shim's events in a task of their own until it is gone."""
    parts.watchers[identity] = asyncio.create_task(_follow(parts, identity, shim), name=f"shim-{identity[:12]}")


async def _follow(parts: Parts, identity: str, shim: Shim) -> None:
    async for event in shim.events():
        if isinstance(event, Exited):
            finish.exited(parts, event)
        else:
            parts.tell("oom", identity, event.container_id)
    if identity not in parts.ending:
        parts.watchers.pop(identity, None)
        await gone(parts, parts.store.sandbox(identity), reason=KILLED)


async def gone(parts: Parts, sandbox: Sandbox, *, reason: str) -> None:
    """Record that a sandbox has no shim any more, and remove what it may have left on the host."""
    finish.lost(parts, sandbox.id, reason=reason or "the sandbox was stopped")
    await tear_down(parts, sandbox)
    latest = parts.store.sandboxes.get(sandbox.id)
    if latest is not None and latest.state is not SandboxState.STOPPED:
        parts.store.save_sandbox(replace(latest, state=SandboxState.STOPPED, shim_pid=0, reason=reason))
        parts.tell("sandbox-stop", sandbox.id)


async def tear_down(parts: Parts, sandbox: Sandbox) -> None:
    """Remove processes, cgroup, network and run-time files of a sandbox, in whatever state they are."""
    shim = parts.shims.pop(sandbox.id, None)
    if shim is not None:
        shim.end()
    await asyncio.to_thread(_clear_away, parts, sandbox)
    if sandbox.config.network == "bridge":
        await parts.network.disconnect(sandbox.id)


def _clear_away(parts: Parts, sandbox: Sandbox) -> None:
    clear_cgroup(parts.sandbox_cgroup(sandbox))
    shutil.rmtree(parts.sandbox_directory(sandbox.id), ignore_errors=True)


def clear_cgroup(path: str) -> None:
    """Kill whatever is left in a cgroup and remove it; one that is not there is fine."""
    try:
        cgroups.kill(path)
        cgroups.remove(path)
    except OSError as error:
        log.warning("cgroup %s could not be removed: %s", path, error)
