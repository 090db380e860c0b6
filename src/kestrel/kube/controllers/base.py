"""What all control loops have in common: informers that fill a queue of keys, and one `sync` for a key.

A loop never trusts the event that woke it: `sync` looks at how things are and brings them one step closer to how they
should be. What fails is tried again with growing delay; what works is forgotten.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

from kestrel.kube.client import Client
from kestrel.kube.client.informer import Change, Informer
from kestrel.kube.client.workqueue import WorkQueue

K = TypeVar("K", bound=Hashable)


class Controller(Protocol):
    """A control loop."""

    async def start(self) -> None:
        """Begin; returns when the loop has seen what exists."""
        ...

    async def stop(self) -> None:
        """End; nothing is undone."""
        ...


class Loop(Generic[K]):
    """A controller's queue and informers; a controller is a subclass that says what to do for a key."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.queue: WorkQueue[K] = WorkQueue()
        self._informers: list[Informer] = []
        self._task: asyncio.Task[None] | None = None

    def follow(
        self, resource: str, keys: Callable[[Change], Sequence[K]], *, fields: str = "", labels: str = ""
    ) -> Informer:
        """Follow a resource; `keys` says which keys a change concerns. Call in `__init__`."""
        informer = Informer(self.client, resource, fields=fields, labels=labels)
        informer.on_change(lambda change: self._enqueue(keys(change)))
        self._informers.append(informer)
        return informer

    def _enqueue(self, keys: Sequence[K]) -> None:
        for key in keys:
            self.queue.add(key)

    async def prepare(self) -> None:
        """Do what has to be there before the loop begins."""

    async def sync(self, key: K) -> None:
        """Bring what the key names one step closer to how it should be."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin; returns when the caches are filled."""
        await self.prepare()
        for informer in self._informers:
            await informer.start()
        self._task = asyncio.create_task(self.queue.run(self.sync), name=type(self).__name__.lower())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.queue.close()
        for informer in self._informers:
            await informer.stop()


class Controllers:
    """Several control loops as one."""

    def __init__(self, controllers: Sequence[Controller]) -> None:
        self._controllers = tuple(controllers)

    async def start(self) -> None:
        """Begin all, in order: namespaces come before what lives in them."""
        for controller in self._controllers:
            await controller.start()

    async def stop(self) -> None:
        """End all, the last first."""
        for controller in reversed(self._controllers):
            await controller.stop()
