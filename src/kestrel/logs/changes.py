"""Wakes those who follow log files, with one inotify instance for all of them.

The kernel gives a user 128 inotify instances by default, and running out of them is a classic failure of container
hosts; so followers share one, opened when the first follower comes and closed when the last one leaves. A follower
watches the directory of its file: a write to the file and a rotation both wake it. Where the kernel refuses, `wait`
falls back to a short sleep, which costs something only while somebody follows.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kestrel.linux import inotify

POLL = 0.25
"""Seconds between looks where inotify is not to be had."""

_MASK = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_DELETE


class Changes:
    """Hands out wake-ups for directories. Use from one event loop."""

    def __init__(self) -> None:
        self._inotify: inotify.Inotify | None = None
        self._listeners: dict[int, set[Listener]] = {}
        self._by_directory: dict[Path, set[Listener]] = {}

    @contextmanager
    def watch(self, directory: Path) -> Iterator["Listener"]:
        """Yield a listener that is woken by every change in `directory`."""
        listener = Listener(self._add(directory))
        if listener.number is not None:
            self._listeners.setdefault(listener.number, set()).add(listener)
        self._by_directory.setdefault(directory, set()).add(listener)
        try:
            yield listener
        finally:
            self._by_directory[directory].discard(listener)
            if not self._by_directory[directory]:
                del self._by_directory[directory]
            self._forget(listener)

    def wake(self, directory: Path) -> None:
        """Ring for those who watch `directory`, because something they wait for happened elsewhere."""
        for listener in self._by_directory.get(directory, ()):
            listener.wake()

    def _add(self, directory: Path) -> int | None:
        try:
            if self._inotify is None:
                self._inotify = inotify.Inotify()
                asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._read)
            return self._inotify.add(str(directory), _MASK)
        except OSError:
            self._close_if_unused()
            return None

    def _read(self) -> None:
        assert self._inotify is not None
        for event in self._inotify.read():
            if event.mask & inotify.IN_Q_OVERFLOW:
                for listeners in self._listeners.values():
                    for listener in listeners:
                        listener.wake()
            for listener in self._listeners.get(event.watch, ()):
                listener.wake()

    def _forget(self, listener: "Listener") -> None:
        if listener.number is None:
            return
        listeners = self._listeners[listener.number]
        listeners.discard(listener)
        if not listeners:
            del self._listeners[listener.number]
            if self._inotify is not None:
                self._inotify.remove(listener.number)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._inotify is not None and not self._listeners:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None


class Listener:
    """One follower's bell."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Ring: the next (or the present) `wait` returns at once."""
        self._event.set()

    async def wait(self) -> None:
        """Return when something changed since the last call, or, without inotify, after a short while."""
        if self.number is None:
            try:
                await asyncio.wait_for(self._event.wait(), POLL)
            except TimeoutError:
                return
        else:
            await self._event.wait()
        self._event.clear()
