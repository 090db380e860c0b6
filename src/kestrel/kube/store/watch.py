"""The window of recent changes, and the watchers that listen.

Changes are appended in order of their resourceVersion, once they are durable. The window remembers the last
`capacity` of them; a watch that begins within it is replayed and then fed live, in one queue, so that nothing is lost
between the two. Offering a change to a watcher is a dictionary look-up and an append: no task, no polling. A watcher
that does not read is dropped when its queue is full, and told so at its next read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from kestrel.base.errors import KestrelError
from kestrel.kube.api import status
from kestrel.kube.store.store import Change, Match

CAPACITY = 4096
"""Changes remembered for watches that come back."""
BACKLOG = 16384
"""Changes a slow reader may be behind."""


def too_old(wanted: int, oldest: int) -> KestrelError:
    """Return the 410 for a version the window no longer holds, worded as Kubernetes does."""
    return status.expired(f"too old resource version: {wanted} ({oldest})")


class Window:
    """The last changes of all resources and everyone who listens to them."""

    def __init__(self, start: int, *, capacity: int = CAPACITY, backlog: int = BACKLOG) -> None:
        self._changes: deque[Change] = deque()
        self._capacity = capacity
        self._backlog = backlog
        self._start = start
        self.latest = start
        """The newest version: everything up to it has been offered to every watcher."""
        self._watchers: dict[str, set[Watcher]] = {}

    @property
    def start(self) -> int:
        """All changes after this version are remembered."""
        return self._start

    def append(self, change: Change) -> None:
        """Remember a change and hand it to whoever listens."""
        self._changes.append(change)
        self.latest = change.version
        if len(self._changes) > self._capacity:
            self._start = self._changes.popleft().version
        for watcher in tuple(self._watchers.get(change.record.key.resource, ())):
            watcher.offer(change)

    def since(self, version: int) -> Iterator[Change]:
        """Yield the remembered changes after a version, newest first; raises Expired when some are forgotten."""
        if version < self._start:
            raise too_old(version, self._start)
        for change in reversed(self._changes):
            if change.version <= version:
                return
            yield change

    def watch(self, resource: str, namespace: str, name: str, since: int, match: Match | None) -> Watcher:
        """Open a watch on changes after `since`."""
        if since > self.latest:
            raise too_old(since, self.latest)
        past = [change for change in self.since(since) if change.record.key.resource == resource]
        watcher = Watcher(self, resource, namespace, name, match, since)
        for change in reversed(past):
            watcher.offer(change)
        self._watchers.setdefault(resource, set()).add(watcher)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        """Stop feeding a watcher."""
        self._watchers.get(watcher.resource, set()).discard(watcher)


class Watcher:
    """One reader's queue; implements `store.Watch`."""

    def __init__(
        self, window: Window, resource: str, namespace: str, name: str, match: Match | None, since: int
    ) -> None:
        self.resource = resource
        self._window = window
        self._namespace = namespace
        self._name = name
        self._match = match
        self._queue: list[tuple[str, Change]] = []
        self._handed = since
        self._lagged = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, change: Change) -> None:
        """Queue a change if it concerns this reader."""
        key = change.record.key
        if (self._namespace and key.namespace != self._namespace) or (self._name and key.name != self._name):
            return
        seen = change.seen_by(self._match)
        if seen is None:
            return
        if len(self._queue) >= self._window._backlog:
            self._lagged = True
            self._queue.clear()
            self._window.forget(self)
        else:
            self._queue.append((seen, change))
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def batch(self) -> list[tuple[str, Change]]:
        """Return what has come, waiting for at least one change; empty only after `close`."""
        while not self._queue:
            if self._lagged:
                raise too_old(self._handed, self._window.start)
            if self._closed:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        found, self._queue = self._queue, []
        self._handed = found[-1][1].version
        return found

    @property
    def version(self) -> int:
        """Everything up to this version has been handed out."""
        return self._handed if self._queue or self._lagged else self._window.latest

    def close(self) -> None:
        """Stop listening and wake the reader."""
        self._closed = True
        self._window.forget(self)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
