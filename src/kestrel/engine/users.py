"""Whose users a container has: its own, unless it asks for something that only the host's can have.

A user namespace makes root of a container nobody on the host, so it is what a container gets when nobody says
otherwise. `refusal` names what stands against it: a namespace of the host, a right that the kernel grants over the
whole machine only, a user beyond the range, or a mount whose filesystem does not take part. Then the container shares
the host's users, as with docker and Kubernetes; whoever asks for a user namespace by name is refused with that reason.

Another container of the same sandbox is not affected. What they share of the disk has the same owners either way,
because it is id-mapped.
"""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kestrel.base.errors import FailedPrecondition, InvalidArgument, KestrelError
from kestrel.engine import ranges
from kestrel.engine.model import ContainerConfig, Sandbox, SandboxConfig
from kestrel.engine.rights import kept_capabilities
from kestrel.engine.shims import Zygote
from kestrel.linux import mounts
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import DEFAULT_CAPABILITIES

WORDS = ("auto", "own", "host")
OVER_NAMESPACES = frozenset(DEFAULT_CAPABILITIES) | {
    f"CAP_{name}" for name in "DAC_READ_SEARCH IPC_OWNER LEASE NET_ADMIN NET_BROADCAST SYS_PTRACE".split()
}
"""Capabilities that a user namespace's root can use over what is its own (`ns_capable` in the kernel).

The others are asked of the first user namespace, or, as SYS_ADMIN, are wanted for what only that one grants.
"""


@dataclass(slots=True)
class Mapper:
    """What this machine can do: `namespace` is a descriptor of a user namespace to try mounts with, -1 without.

    `missing` says why containers share the host's users; empty when they need not.
    """

    namespace: int = -1
    missing: str = ""

    async def probe(self, zygote: Zygote, root: Path) -> None:
        """Try all of it on the disk of `root`."""
        try:
            self.namespace = await zygote.user_namespace(ranges.mappings(ranges.FIRST))
        except KestrelError as error:
            self.missing = f"no user namespaces: {error}"
            return
        self.missing = await asyncio.to_thread(self._try_layers, root)

    def _try_layers(self, root: Path) -> str:
        place = root / ".probe-users"
        try:
            for name in ("lower", "upper", "work"):
                (place / name).mkdir(parents=True, exist_ok=True)
            plan = Rootfs(
                lowers=(Lower(path=str(place / "lower")),), upper=str(place / "upper"), work=str(place / "work")
            )
            os.close(mounts.open_rootfs(plan, user_namespace=self.namespace))
        except OSError as error:
            return f"layers on {root} cannot be id-mapped: {error.strerror}"
        return ""

    def maps(self, path: str) -> bool:
        """Say whether everything that is mounted at a path can be id-mapped; True for one that is not there."""
        try:
            with mounts.opened(mounts.clone(path)) as tree:
                mounts.map_ids(tree, self.namespace, recursive=True)
        except FileNotFoundError:
            return True  # whoever mounts it says so
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the namespace."""
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1


def of_sandbox(mapper: Mapper, config: SandboxConfig, identity: str, taken: frozenset[int]) -> int:
    """Return the first of a new sandbox's users on the host, 0 for the host's own. Raises when that cannot be had."""
    if config.users not in WORDS:
        raise InvalidArgument(f"unknown users {config.users!r}", hint=f"there are {', '.join(WORDS)}")
    if config.users == "host":
        return 0
    reason = mapper.missing or ("" if config.users == "own" else shared(config))
    if not reason:
        return ranges.free(identity, taken)
    if config.users == "own":
        raise FailedPrecondition(f"no user namespace can be had here: {reason}", hint="ask for the host's users")
    return 0


def shared(config: SandboxConfig) -> str:
    """Say which namespace of the host a sandbox has; empty when it has none."""
    kinds = {"network": config.network == "host", "processes": config.host_pid, "IPC": config.host_ipc}
    return next((f"it has the host's {kind}" for kind, has in kinds.items() if has), "")


def of_container(sandbox: Sandbox, refusal: str) -> int:
    """Return the first of a container's users on the host, 0 for the host's own. Raises when its own were asked for."""
    if refusal and sandbox.config.users == "own":
        message = f"the container cannot have users of its own: {refusal}"
        raise InvalidArgument(message, hint="ask for the host's users")
    return 0 if refusal else sandbox.first_id


async def refusal(mapper: Mapper, config: ContainerConfig, image_user: str, *, asked: bool) -> str:
    """Return what stands against users of its own, or the empty string.

    Rights over the host do not when a user namespace was `asked` for: they are rights over what it has, then.
    """
    reason = "" if asked else over_host(config)
    reason = reason or beyond((*(config.security.user or image_user).split(":"), *map(str, config.security.groups)))
    sources = [mount.source for mount in config.mounts if mount.kind == "bind"]
    if reason or not sources:
        return reason
    source = await asyncio.to_thread(lambda: next((path for path in sources if not mapper.maps(path)), ""))
    return f"{source}, or something mounted in it, cannot be id-mapped" if source else ""


def over_host(config: ContainerConfig) -> str:
    """Name a right over the host that is asked for."""
    if config.security.privileged:
        return "it is privileged"
    names = [name for name in kept_capabilities(config.security) if name not in OVER_NAMESPACES]
    return f"{names[0].removeprefix('CAP_')} is a right over the host" if names else ""


def beyond(numbers: Iterable[str]) -> str:
    """Name a user or group that no range has."""
    for number in numbers:
        if number.isascii() and number.isdigit() and int(number) >= ranges.SIZE:
            return f"user or group {number} is beyond the {ranges.SIZE} of a range"
    return ""
