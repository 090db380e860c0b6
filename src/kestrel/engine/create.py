"""Creating a container: a name, an image, a writable snapshot on its layers, a record. Nothing runs yet."""

import asyncio
from dataclasses import replace

from kestrel.base.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from kestrel.base.files import private_directory
from kestrel.base.ids import check_name, new_id, new_name, short
from kestrel.engine import sandbox as sandboxes
from kestrel.engine import users
from kestrel.engine.model import Container, ContainerConfig, ContainerState, Sandbox, SandboxConfig, SandboxState
from kestrel.engine.parts import Parts
from kestrel.engine.signals import number
from kestrel.images import Image


async def create(parts: Parts, config: ContainerConfig) -> Container:
    """Create a container from an image that is present. Raises NotFound for the image, AlreadyExists for the name."""
    container, image = await planned(parts, config)
    private_directory(parts.container_directory(container.id))
    parts.store.save_container(container)
    try:
        await asyncio.to_thread(parts.snapshots.prepare, container.id, image.layers)
    except BaseException:
        parts.store.drop_container(container.id)
        raise
    parts.tell("create", container.sandbox, container.id)
    return container


async def planned(parts: Parts, config: ContainerConfig) -> tuple[Container, Image]:
    """Return the container that `create` would make, and its image; nothing is recorded. Raises as `create`."""
    taken = frozenset(parts.store.names())
    config = replace(config, name=check_name(config.name) if config.name else new_name(taken))
    if config.name in taken:
        raise AlreadyExists(
            f"the name {config.name!r} is in use by another container",
            hint=f"choose another --name, or remove that one with `kestrel rm {config.name}`",
        )
    _check(parts, config)
    image = await parts.images.resolve(config.image)
    config = replace(config, stop_signal=config.stop_signal or image.config.config.stop_signal)
    await parts.images.ensure_unpacked(image)
    identity = new_id()
    asked = _sandbox_config(parts, config, identity).users == "own"
    refusal = await users.refusal(parts.users, config, image.config.config.user or "", asked=asked)
    sandbox = _sandbox(parts, config, identity)  # from here to its record nothing may wait: its range is not taken yet
    container = Container(
        id=identity,
        config=config,
        sandbox=sandbox.id,
        first_id=users.of_container(sandbox, refusal),
        image_id=str(image.id),
        image_digest=str(image.digest),
        state=ContainerState.CREATED,
        created=parts.clock.now(),
        log_path=config.log_path or str(parts.container_directory(identity) / "log"),
    )
    return container, image


def _sandbox(parts: Parts, config: ContainerConfig, identity: str) -> Sandbox:
    """Return the sandbox it will run in; a private one is made when it starts."""
    if config.sandbox is not None:
        return parts.store.sandbox(config.sandbox)
    return sandboxes.planned(parts, private(config, identity))


def _sandbox_config(parts: Parts, config: ContainerConfig, identity: str) -> SandboxConfig:
    return private(config, identity) if config.sandbox is None else parts.store.sandbox(config.sandbox).config


def private(config: ContainerConfig, identity: str) -> SandboxConfig:
    """Return what a container's own sandbox should be: it goes by the container's name."""
    wanted = config.sandbox_config or SandboxConfig(name=config.name)
    names = tuple(dict.fromkeys((*wanted.names, config.name)))
    return replace(wanted, name=wanted.name or config.name, names=names, hostname=wanted.hostname or short(identity))


def _check(parts: Parts, config: ContainerConfig) -> None:
    if config.sandbox is not None:
        sandbox = parts.store.sandbox(config.sandbox)
        if sandbox.state is not SandboxState.READY:
            raise FailedPrecondition(f"sandbox {sandbox.config.name} is not ready: {sandbox.reason or 'stopped'}")
    if config.stop_signal:
        number(config.stop_signal)  # said now, not when it is to be stopped
    for mount in config.mounts:
        if not mount.target.startswith("/"):
            raise InvalidArgument(f"invalid mount target {mount.target!r}", hint="a target is an absolute path")
