"""Waiting for a container's end, without polling."""

from dataclasses import replace

from kestrel.engine.model import Container, ContainerState
from kestrel.engine.parts import Parts
from kestrel.engine.remove import settle


async def wait(parts: Parts, wanted: str) -> Container:
    """Return the container as it was when it ended; at once if it has. One that was never started is waited for.

    What was its alone is gone by then: its ports can be published by another, and with `--rm` its name is free.
    """
    container = parts.store.container(wanted)
    identity = container.id
    with_exit = parts.events.subscribe(lambda e: e.container == identity and e.action in ("exit", "remove"))
    async with with_exit as events:
        container = parts.store.containers.get(identity, container)
        while container.state is not ContainerState.EXITED:
            event = await events.next()
            # With `--rm` the record may be gone before we are told of the end; the event has the code.
            ended = replace(container, state=ContainerState.EXITED, exit_code=event.exit_code)
            container = parts.store.containers.get(identity, ended)
    if container.config.sandbox is None:
        await settle(parts, container)
    return container
