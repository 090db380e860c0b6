"""Waiting for a container's end, without polling."""

from kestrel.engine.model import Container, ContainerState
from kestrel.engine.parts import Parts


async def wait(parts: Parts, wanted: str) -> Container:
    """Return the container as it was when it ended; at once if it has. One that was never started is waited for."""
    identity = parts.store.container(wanted).id
    with_exit = parts.events.subscribe(lambda e: e.container == identity and e.action in ("exit", "remove"))
    async with with_exit as events:
        container = parts.store.containers.get(identity)
        while container is not None and container.state is not ContainerState.EXITED:
            last = container
            await events.next()
            container = parts.store.containers.get(identity, last)
            if identity not in parts.store.containers:
                break
    return container or last
