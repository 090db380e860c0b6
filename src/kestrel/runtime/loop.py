"""A small event loop over epoll: descriptors, timers and the end of children. One thread, callbacks, nothing else.

The shim cannot afford asyncio (68 ms and several megabytes to import, and threads after fork); it needs a dozen
descriptors watched and a few timers.
"""

from __future__ import annotations

import select
import sys
import time

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
        self._idle: tuple[float, Callable[[], None]] | None = None
        self._stirred = True
        self._stopped = False

    def fileno(self) -> int:
        """The descriptor that is readable when anything watched has something for us."""
        return self._epoll.fileno()

    @property
    def watched(self) -> frozenset[int]:
        """The descriptors that are watched."""
        return frozenset(self._callbacks)

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

    def when_idle(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action()` whenever nothing has happened for that long and no timer is to come."""
        self._idle = (seconds, action)

    def stop(self) -> None:
        """Make `run` return after the callbacks of this round."""
        self._stopped = True

    def run(self) -> None:
        """Call back until stopped."""
        while not self._stopped:
            ready = self._epoll.poll(self._timeout())
            for fd, events in ready:
                callback = self._callbacks.get(fd)
                if callback is not None:  # an earlier callback of this round may have dropped it
                    self._guard(callback, events)
            fired = self._fire()
            if ready or fired:
                self._stirred = True
            elif self._idle is not None and self._stirred and not self._timers:
                self._stirred = False  # if nothing happens, there is no reason to ask again
                self._guard(self._idle[1])

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
            return self._idle[0] if self._idle is not None and self._stirred else -1
        return max(0.0, min(timer.due for timer in self._timers) - time.monotonic())

    def _fire(self) -> bool:
        now = time.monotonic()
        due = [timer for timer in self._timers if timer.due <= now]
        for timer in due:
            action, timer.action = timer.action, None
            if action is not None:
                self._guard(action)
        return bool(due)
