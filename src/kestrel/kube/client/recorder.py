"""Events: what happened to an object, told to people through `kubectl describe` and `kubectl events`.

`event` never waits and never raises: it queues, and a task of the recorder writes. The same thing said again raises the
count of the first Event instead of making another. Where one object produces many Events that differ in their
message only, further ones are folded into one that says so. A token bucket per object keeps a broken loop from
flooding the store: a burst of 25, then one every five minutes, as client-go's defaults are.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from kestrel.base.clock import Clock, SystemClock, rfc3339
from kestrel.base.errors import KestrelError, NotFound
from kestrel.kube.client.client import Client, JSONObject

log = logging.getLogger(__name__)

NORMAL, WARNING = "Normal", "Warning"

_SIMILAR_LIMIT = 10
_SIMILAR_SECONDS = 600.0
_BURST = 25.0
_REFILL_SECONDS = 300.0
_REMEMBERED = 4096
_MESSAGE_LIMIT = 1024
_QUEUE_LIMIT = 1000
_COMBINED = "(combined from similar events): "


@dataclass(slots=True)
class _Said:
    """An Event that exists."""

    name: str
    count: int


@dataclass(slots=True)
class _Similar:
    """How many different messages of one kind an object has produced lately."""

    messages: set[str] = field(default_factory=set)
    last: float = 0.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    last: float


@dataclass(frozen=True, slots=True)
class _Note:
    regarding: JSONObject
    type: str
    reason: str
    message: str
    moment: datetime


class Recorder:
    """Writes Events in the name of one component. Use `async with`, or `start` and `stop`."""

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock | None = None) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock or SystemClock()
        self._notes: deque[_Note] = deque()
        self._waiting = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._said: OrderedDict[tuple[str, ...], _Said] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def event(self, regarding: JSONObject, type: str, reason: str, message: str, *, path: str = "") -> None:  # noqa: A002 - the field's word
        """Tell that something happened to an object.

        `type` is Normal or Warning, `reason` one CamelCase word, `message` a sentence for people, `path` the part of
        the object (`spec.containers{name}`).
        """
        reference = _reference(regarding, path)
        if not self._allowed(str(reference.get("uid") or reference["name"])):
            return
        if len(self._notes) >= _QUEUE_LIMIT:
            log.warning("dropped event %s of %s: %s", reason, reference["name"], message)
            return
        message = self._folded(reference, type, reason, message)
        self._notes.append(_Note(reference, type, reason, message[:_MESSAGE_LIMIT], self._clock.now()))
        self._idle.clear()
        self._waiting.set()

    def _allowed(self, identity: str) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(identity, _Bucket(_BURST, now))
        _trim(self._buckets)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.last) / _REFILL_SECONDS)
        bucket.last = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _folded(self, reference: JSONObject, kind: str, reason: str, message: str) -> str:
        key = (str(reference.get("uid")), str(reference.get("fieldPath")), kind, reason)
        similar = self._similar.setdefault(key, _Similar())
        _trim(self._similar)
        now = self._clock.monotonic()
        if now - similar.last > _SIMILAR_SECONDS:
            similar.messages.clear()
        similar.last = now
        similar.messages.add(message)
        return message if len(similar.messages) < _SIMILAR_LIMIT else f"{_COMBINED}{message}"

    async def start(self) -> Self:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name=f"events of {self._component}")
        return self

    async def stop(self) -> None:
        """Write what is queued (for two seconds at most), then stop."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await asyncio.wait_for(self.flush(), 2)
        except TimeoutError:
            log.warning("%d events were not written", len(self._notes))
        task.cancel()
        await asyncio.wait([task])

    async def flush(self) -> None:
        """Wait until everything queued so far is written."""
        await self._idle.wait()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _run(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while self._notes:
                note = self._notes.popleft()
                try:
                    await self._write(note)
                except KestrelError as error:
                    log.debug("event %s of %s was not written: %s", note.reason, note.regarding["name"], error)
            self._idle.set()

    async def _write(self, note: _Note) -> None:
        folded = note.message.startswith(_COMBINED)
        said_of = _COMBINED if folded else note.message
        regarding = note.regarding
        key = (str(regarding.get("uid")), str(regarding.get("fieldPath")), note.type, note.reason, said_of)
        said = self._said.get(key)
        if said is not None and await self._again(said, note):
            self._said.move_to_end(key)
            return
        self._said[key] = await self._first(note)
        _trim(self._said)

    async def _again(self, said: _Said, note: _Note) -> bool:
        patch = {"count": said.count + 1, "lastTimestamp": rfc3339(note.moment), "message": note.message}
        try:
            await self._client.patch("events", said.name, patch, _event_namespace(note.regarding))
        except NotFound:
            return False
        said.count += 1
        return True

    async def _first(self, note: _Note) -> _Said:
        name = f"{note.regarding['name']}.{int(note.moment.timestamp() * 1e9):x}{os.urandom(2).hex()}"
        namespace = _event_namespace(note.regarding)
        stamp = rfc3339(note.moment)
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": note.regarding,
            "reason": note.reason,
            "message": note.message,
            "type": note.type,
            "source": {"component": self._component} | ({"host": self._host} if self._host else {}),
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        await self._client.create("events", body, namespace)
        return _Said(name, 1)


def _reference(obj: JSONObject, path: str) -> JSONObject:
    metadata: dict[str, Any] = obj["metadata"]
    found: JSONObject = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": metadata["name"]}
    for field_name in ("namespace", "uid", "resourceVersion"):
        if metadata.get(field_name):
            found[field_name] = metadata[field_name]
    if path:
        found["fieldPath"] = path
    return found


def _event_namespace(reference: JSONObject) -> str:
    """Events of objects without a namespace live in `default`, as everywhere."""
    return str(reference.get("namespace") or "default")


def _trim(table: OrderedDict[Any, Any]) -> None:
    while len(table) > _REMEMBERED:
        table.popitem(last=False)
