"""A small event loop over epoll: descriptors, timers and the end of children. One thread, callbacks, nothing else.

The shim cannot afford asyncio (68 ms and several megabytes to import, and threads after fork); it needs a dozen
descriptors watched and a few timers.
"""

from __future__ import annotations

import os
import select
import sys
import time

from kestrel.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[int], None]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
PRIORITY = select.EPOLLPRI
ENDED = select.EPOLLHUP | select.EPOLLERR


class Timer:
    """A callback to come; `cancel` it by forgetting it."""

    __slots__ = ("action", "due")

    def __init__(self, due: float, action: Callable[[], None]) -> None:
        self.due = due
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Never call it."""
        self.action = None


class Loop:
    """Watch descriptors and call back; `run` returns after `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self._stopped = False

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call `callback(events)` whenever one of `events` (or an error or hang-up) is there; again to change both."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; must be called before the descriptor is closed. Forgetting an unknown one is allowed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action()` once, that much later."""
        timer = Timer(time.monotonic() + seconds, action)
        self._timers.append(timer)
        return timer

    def watch_children(self, callback: Callable[[int, int], None]) -> None:
        """Call `callback(pid, wait status)` for every child that ends, adopted ones too."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals.signal(signals.SIGCHLD, lambda *_: None)  # a handler is needed for the wakeup descriptor to be written
        signals.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def reap(_events: int) -> None:
            os.read(reader, 4096)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                self._guard(callback, pid, status)

        self.watch(reader, READ, reap)

    def stop(self) -> None:
        """Make `run` return after the callbacks of this round."""
        self._stopped = True

    def run(self) -> None:
        """Call back until stopped."""
        while not self._stopped:
            for fd, events in self._epoll.poll(self._timeout()):
                callback = self._callbacks.get(fd)
                if callback is not None:  # an earlier callback of this round may have dropped it
                    self._guard(callback, events)
            self._fire()

    def _guard(self, callback: Callable[..., None], *arguments: int) -> None:
        """A bug, or an error nobody foresaw, costs one callback and not the sandbox. It is written down."""
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - see above
            sys.excepthook(type(error), error, error.__traceback__)
            sys.stderr.flush()

    def _timeout(self) -> float:
        self._timers = [timer for timer in self._timers if timer.action is not None]
        if not self._timers:
            return -1
        return max(0.0, min(timer.due for timer in self._timers) - time.monotonic())

    def _fire(self) -> None:
        now = time.monotonic()
        for timer in [timer for timer in self._timers if timer.due <= now]:
            action, timer.action = timer.action, None
            if action is not None:
                self._guard(action)
