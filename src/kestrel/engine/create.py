"""Creating a container: a name, an image, a writable snapshot on its layers, a record. Nothing runs yet."""

import asyncio
from dataclasses import replace

from kestrel.base.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from kestrel.base.files import private_directory
from kestrel.base.ids import check_name, new_id, new_name
from kestrel.engine.model import Container, ContainerConfig, ContainerState, SandboxState
from kestrel.engine.parts import Parts
from kestrel.engine.signals import number


async def create(parts: Parts, config: ContainerConfig) -> Container:
    """Create a container from an image that is present. Raises NotFound for the image, AlreadyExists for the name."""
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
    directory = private_directory(parts.container_directory(identity))
    container = Container(
        id=identity,
        config=config,
        sandbox=config.sandbox or new_id(),
        image_id=str(image.id),
        image_digest=str(image.digest),
        state=ContainerState.CREATED,
        created=parts.clock.now(),
        log_path=config.log_path or str(directory / "log"),
    )
    parts.store.save_container(container)
    try:
        await asyncio.to_thread(parts.snapshots.prepare, identity, image.layers)
    except BaseException:
        parts.store.drop_container(identity)
        raise
    parts.tell("create", container.sandbox, identity)
    return container


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
