"""Manifests that are ready to be sent, in memory, by the path they are asked for under.

A manifest is asked for far more often than it changes, and an answer from here opens no transaction and no file. The
registry is the only writer of its tables, so it is also the one that takes things out again: `drop` after each
change of a repository. A reader that looked at the tables before the change and comes back after it must not put the
old state in: it presents the `generation` it began in.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from kestrel.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Ready:
    """A manifest with the headers of its answer."""

    repository: str
    digest: Digest
    media_type: str
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    head: bytes = b""
    """What an answer begins with, for `whole`."""


class ManifestCache:
    """Bounded by bytes; the longest unused goes first. Safe to use from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[str, Ready] = OrderedDict()
        self._paths: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self.generation = 0

    def get(self, path: str) -> "Ready | None":
        """Return what answers a request for `path`, or None."""
        with self._lock:
            found = self._entries.get(path)
            if found is not None:
                self._entries.move_to_end(path)
            return found

    def put(self, path: str, ready: Ready, generation: int) -> None:
        """Keep an answer, unless anything changed since `generation`."""
        with self._lock:
            if generation != self.generation or len(ready.data) > self._limit // 8:
                return
            self._forget(path)
            self._entries[path] = ready
            self._paths.setdefault(ready.repository, set()).add(path)
            self._size += _cost(path, ready)
            while self._size > self._limit:
                self._forget(next(iter(self._entries)))

    def drop(self, repository: str) -> None:
        """Forget everything of a repository; whoever is reading its old state will not put it in any more."""
        with self._lock:
            self.generation += 1
            for path in tuple(self._paths.get(repository, ())):
                self._forget(path)

    def _forget(self, path: str) -> None:
        gone = self._entries.pop(path, None)
        if gone is None:
            return
        self._size -= _cost(path, gone)
        paths = self._paths[gone.repository]
        paths.discard(path)
        if not paths:
            del self._paths[gone.repository]


def _cost(path: str, ready: Ready) -> int:
    return len(ready.data) + len(ready.head) + 2 * len(path) + 1500  # the dictionaries and strings around it, roughly
