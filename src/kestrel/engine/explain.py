"""A container in plain words: what is done to make it, and what it may and may not do. Before, while and after it runs.

The words come from the plan that the runtime executes, so they cannot say anything but what happens.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from kestrel.base.units import print_size
from kestrel.engine import ranges, users
from kestrel.engine import spec as specs
from kestrel.engine.create import planned
from kestrel.engine.facts import gather
from kestrel.engine.model import Container, ContainerConfig, Resources, Sandbox
from kestrel.engine.parts import Parts
from kestrel.engine.rights import kept_capabilities
from kestrel.engine.start import coming
from kestrel.images import Image
from kestrel.linux import cgroups
from kestrel.linux.capabilities import BITS
from kestrel.linux.rootfs import Rootfs
from kestrel.runtime import plan

SHARED = frozenset({"network", "ipc", "uts"})
"""Namespaces that a container has of its sandbox."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One sentence, under its heading."""

    topic: str
    text: str


async def explain(parts: Parts, wanted: str) -> list[Explained]:
    """Say what a container is that was created. Raises NotFound, or why it could not be started."""
    container = parts.store.container(wanted)
    image = await parts.images.resolve(container.image_id)
    sandbox = parts.store.sandboxes.get(container.sandbox) or coming(container)
    rootfs = parts.snapshots.rootfs(container.id)
    lines = await _lines(parts, container, sandbox, image, rootfs)
    return [*lines, Explained("log", f"{container.log_path}, written by the container's shim")]


async def explain_new(parts: Parts, config: ContainerConfig) -> list[Explained]:
    """Say what a container would be that is not created. Raises as `create` does, and why it could not be started."""
    container, image = await planned(parts, config)
    rootfs = replace(parts.snapshots.view(image.layers), upper="a directory of its own")
    return await _lines(parts, container, coming(container), image, rootfs)


async def _lines(parts: Parts, container: Container, sandbox: Sandbox, image: Image, rootfs: Rootfs) -> list[Explained]:
    """Return the sentences, in the order in which things happen."""
    below = rootfs if container.id in parts.store.containers else Rootfs(lowers=rootfs.lowers)
    facts = await asyncio.to_thread(gather, parts, container, sandbox, image, below, look=True)
    spec = specs.build(container, facts)
    made = plan.build(spec, rootfs, sandbox=SHARED, **_hierarchy())
    return [
        Explained("image", f"{container.config.image}; its layers ({len(image.layers)}) are never written to"),
        *_network(sandbox),
        Explained("namespaces", _shared(sandbox)),
        Explained("users", await _users(parts, container, sandbox, image)),
        *(Explained("steps", line) for line in made.describe()),
        *_rights(container, spec),
        *_devices(spec),
        *_limits(container.config.resources),
    ]


def _shared(sandbox: Sandbox) -> str:
    """Say which namespaces it has of its sandbox and of the host; those of its own are a step."""
    config = sandbox.config
    hosts = {"network": config.network == "host", "IPC": config.host_ipc, "processes": config.host_pid}
    shared = [name for name in ("network", "IPC", "host name") if not hosts.get(name)]
    shared += ["processes"] if config.share_pid else []
    theirs = [name for name, host in hosts.items() if host]
    return f"of its sandbox: {', '.join(shared)}" + (f"; of the host: {', '.join(theirs)}" if theirs else "")


async def _users(parts: Parts, container: Container, sandbox: Sandbox, image: Image) -> str:
    """Say whose users it has, and why the host's."""
    if container.first_id:
        return f"its own: users 0 to {ranges.SIZE - 1} are {container.first_id} and on on the host, who may do nothing"
    reason = "they were asked for" if sandbox.config.users == "host" else parts.users.missing
    reason = reason or users.shared(sandbox.config)
    reason = reason or await users.refusal(parts.users, container.config, image.config.config.user or "", asked=False)
    return f"the host's: {reason or 'it was made with them'}"


def _hierarchy() -> dict[str, Any]:
    """What the plan has to know of this machine's cgroups."""
    try:
        hierarchy = cgroups.detect()
    except OSError:
        return {}
    return {"cgroup_version": hierarchy.version, "cgroup_hierarchies": hierarchy.hierarchies()}


def _network(sandbox: Sandbox) -> list[Explained]:
    kind = sandbox.config.network
    if kind == "host":
        return [Explained("network", "the host's own: its addresses, its ports, no protection")]
    if kind == "none":
        return [Explained("network", "its own, with nothing in it but loopback")]
    where = f"{sandbox.address} on the bridge" if sandbox.address else "an address on the bridge, when it runs"
    found = [Explained("network", f"{where}; what goes out is masqueraded")]
    for port in sandbox.ports:
        host = f"{port.host_ip or 'every address'} of the host, port {port.host_port or 'chosen when it runs'}"
        found.append(Explained("network", f"{host}, leads to {port.container_port}/{port.protocol}"))
    return found


def _rights(container: Container, spec: dict[str, Any]) -> list[Explained]:
    alone = container.config.security.no_new_privileges
    found = [Explained("capabilities", _capabilities(container, spec["process"]["user"]["uid"], gains=not alone))]
    if alone:
        found.append(Explained("capabilities", "no program it runs gains any: setuid bits count for nothing"))
    profile = spec["linux"].get("seccomp")
    if profile is None:
        return [*found, Explained("seccomp", "off: every system call is allowed")]
    allowed = {
        name for rule in profile.get("syscalls", ()) if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]
    }
    return [*found, Explained("seccomp", f"{len(allowed)} system calls are allowed, some with some arguments only")]


def _capabilities(container: Container, user: int, *, gains: bool) -> str:
    """Say what its process has. All but root lose theirs at execve(2), as none is ambient (`man 7 capabilities`)."""
    kept = kept_capabilities(container.config.security)
    names = ", ".join(name.removeprefix("CAP_").lower() for name in kept) or "none"
    counted = f"{len(kept)} of {len(BITS)}: {names}"
    if not user or not kept:
        return counted
    return f"none for user {user}" + (f"; setuid programs may have up to {counted}" if gains else "")


def _devices(spec: dict[str, Any]) -> list[Explained]:
    """Say which devices may be used besides those that every container has."""
    rules = [rule for rule in spec["linux"]["resources"].get("devices", ()) if rule.get("allow")]
    if any("type" not in rule and "major" not in rule for rule in rules):
        return [Explained("devices", "every device of the host may be made and used")]
    given = [device["path"] for device in spec["linux"].get("devices", ())]
    return [Explained("devices", ", ".join(("null, zero, full, random, urandom, tty and terminals", *given)))]


def _limits(limits: Resources) -> list[Explained]:
    found = []
    if limits.memory:
        found.append(f"{print_size(limits.memory)} of memory; who wants more is killed")
    if limits.cpu_millis:
        found.append(f"{limits.cpu_millis / 1000:g} processors")
    if limits.cpuset:
        found.append(f"only on processors {limits.cpuset}")
    if limits.pids:
        found.append(f"{limits.pids} processes")
    if limits.shm_size:
        found.append(f"{print_size(limits.shm_size)} in /dev/shm")
    for name, soft, hard in limits.ulimits:
        found.append(f"{name} {_bound(soft)}, at most {_bound(hard)}")
    return [Explained("limits", text) for text in found] or [Explained("limits", "none")]


def _bound(limit: int) -> str:
    return "without limit" if limit < 0 else str(limit)
