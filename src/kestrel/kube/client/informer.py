"""List and watch into a local cache, and tell others what changed.

An informer lists once, then follows the watch from the list's resourceVersion. When the server says that the version is
too old, or the watch breaks, it lists again and reports the difference, so that a handler hears of every object that
appeared, changed or vanished however the connection behaved. Objects in the cache are shared: read them, never change
them. Nothing polls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from kestrel.base.errors import KestrelError
from kestrel.kube.client.client import Client, JSONObject, ObjectList, WatchEvent

log = logging.getLogger(__name__)

_FIRST_RETRY, _LONGEST_RETRY = 0.05, 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """ADDED, MODIFIED or DELETED; `old` is what the cache held before, None for ADDED."""

    type: str
    object: JSONObject = field(repr=False)
    old: JSONObject | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return _key(self.object)


Handler = Callable[[Change], None]


class Informer:
    """A cache of one resource, kept up by a task of its own between `start` and `stop` (or `async with`)."""

    def __init__(
        self, client: Client, resource: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._objects: dict[tuple[str, str], JSONObject] = {}
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.resource_version = ""
        """The version the cache is at."""

    def on_change(self, handler: Handler) -> None:
        """Call `handler` for each change from now on, and at once for everything already in the cache.

        It must be quick and must not raise: put the key into a `WorkQueue` and return.
        """
        self._handlers.append(handler)
        for obj in self._objects.values():
            handler(Change("ADDED", obj))

    def get(self, name: str, namespace: str = "") -> JSONObject | None:
        """Return the cached object, None when there is none."""
        return self._objects.get((namespace, name))

    def list(self, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[JSONObject]:
        """Return the cached objects of a namespace (all when empty) that carry all these labels."""
        return [
            obj
            for (where, _), obj in self._objects.items()
            if namespace in ("", where) and (not labels or _carries(obj, labels))
        ]

    async def synced(self) -> None:
        """Wait until the cache has been filled once."""
        await self._synced.wait()

    async def start(self) -> Self:
        """Begin to fill the cache; returns once it is filled."""
        self._task = asyncio.create_task(self.run(), name=f"informer {self._resource}")
        waiting = asyncio.ensure_future(self.synced())
        await asyncio.wait([self._task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def stop(self) -> None:
        """Stop following; the cache stays as it is."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def run(self) -> None:
        """List and watch until cancelled."""
        delay = _FIRST_RETRY
        while True:
            try:
                listed = await self._client.list(
                    self._resource, self._namespace, labels=self._labels, fields=self._fields
                )
                self._replace(listed)
                delay = _FIRST_RETRY
                await self._follow()
            except KestrelError as error:
                log.debug("%s: list again: %s", self._resource, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_RETRY)

    async def _follow(self) -> None:
        events = self._client.watch(
            self._resource,
            self._namespace,
            labels=self._labels,
            fields=self._fields,
            resource_version=self.resource_version,
        )
        async with aclosing(events) as stream:
            async for event in stream:
                self._take(event)

    def _take(self, event: WatchEvent) -> None:
        self.resource_version = event.resource_version
        if event.type == "BOOKMARK":
            return
        key = _key(event.object)
        if event.type == "DELETED":
            old = self._objects.pop(key, None)
        else:
            old = self._objects.get(key)
            self._objects[key] = event.object
        self._tell(Change(event.type, event.object, old))

    def _replace(self, listed: ObjectList) -> None:
        """Make the cache what a list says, and report the difference."""
        before, self._objects = self._objects, {_key(obj): obj for obj in listed.items}
        self.resource_version = listed.resource_version
        for key, old in before.items():
            if key not in self._objects:
                self._tell(Change("DELETED", old, old))
        for key, obj in self._objects.items():
            known = before.get(key)
            if known is None:
                self._tell(Change("ADDED", obj))
            elif known["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                self._tell(Change("MODIFIED", obj, known))
        self._synced.set()

    def _tell(self, change: Change) -> None:
        for handler in self._handlers:
            handler(change)


def _key(obj: JSONObject) -> tuple[str, str]:
    metadata: dict[str, Any] = obj["metadata"]
    return str(metadata.get("namespace", "")), str(metadata["name"])


def _carries(obj: JSONObject, labels: Mapping[str, str]) -> bool:
    own = obj["metadata"].get("labels") or {}
    return all(own.get(key) == value for key, value in labels.items())
