"""Further processes of running containers: exec, as the shim sees it.

A process that joins is confined like the container's first one: what its request leaves out is taken from the
container's spec, and the seccomp filter is always the container's. Its pipes go to whoever asked, so its output does
not pass through the shim.
"""

from __future__ import annotations

import os

from kestrel.base import plainjson
from kestrel.base.errors import Internal, KestrelError
from kestrel.runtime import channel, loop, parent, process, state
from kestrel.runtime.container import Container
from kestrel.runtime.init import Stdio
from kestrel.runtime.messages import ExecRequest, error_from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reply = Callable[["dict[str, Any] | None", "BaseException | None", list[int]], None]


class Exec:
    """One process that joins a container. `reply` gets its pipes once it runs, `ended` its exit code."""

    def __init__(
        self, events: loop.Loop, reply: Reply, ended: Callable[[int], None], claim: Callable[[int], int | None]
    ) -> None:
        """`claim` returns the wait status of a child that had ended before anybody knew whose it was."""
        self.pid = 0
        self.go_between = 0
        self._claim = claim
        self._events = events
        self._reply: Reply | None = reply
        self._ended = ended
        self._channel: channel.Channel | None = None
        self._theirs: list[int] = []
        self._failure: KestrelError | None = None
        self._pidfd = -1

    def start(self, container: Container, request: ExecRequest) -> None:
        """Begin to join."""
        state.require("exec", container.status, container.id)
        stdio = self._make_stdio(request)
        try:
            size = (request.width, request.height)
            started = parent.join(
                container.pidfd, lambda: _task(container, request), container.group, stdio, size, ids=container.ids
            )
        except BaseException:
            self._close_theirs()
            raise
        finally:
            for fd in {stdio.stdin, stdio.stdout, stdio.stderr} - {-1}:
                os.close(fd)
        os.close(started.pidfd)
        self.go_between = started.pid
        self._channel = channel.Channel(started.channel)
        self._events.watch(started.channel.fileno(), loop.READ, self._heard)

    def _make_stdio(self, request: ExecRequest) -> Stdio:
        if request.terminal:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            return Stdio(stdin=null, stdout=null, stderr=null)
        if request.stdin:
            stdin, writer = os.pipe2(os.O_CLOEXEC)
        else:
            stdin, writer = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
        out_reader, out = os.pipe2(os.O_CLOEXEC)
        err_reader, err = os.pipe2(os.O_CLOEXEC)
        self._theirs = ([writer] if writer >= 0 else []) + [out_reader, err_reader]
        return Stdio(stdin=stdin, stdout=out, stderr=err)

    def _heard(self, _events: int) -> None:
        assert self._channel is not None
        heard = self._channel.receive()
        if heard is None:
            self._hang_up()
            return
        self._take(*heard)
        if self._channel is not None and self._channel.buffered:
            self._heard(0)

    def _take(self, message: channel.Message, descriptors: list[int]) -> None:
        assert self._channel is not None
        if "pid" in message:
            self.pid, self._pidfd = message["pid"], descriptors[0]
            status = self._claim(self.pid)
            if status is not None:
                self.reaped(status)
        elif "error" in message:
            self._failure = error_from_json(message["error"])
        elif "ready" in message:
            self._theirs += descriptors
            if self._failure is None:
                self._channel.offer({"go": True})
            else:
                self._hang_up()  # the one between could not tell us its number

    def _hang_up(self) -> None:
        assert self._channel is not None
        self._events.forget(self._channel.fileno())
        self._channel.close()
        self._channel = None
        if self._failure is None and self.pid and self._reply is not None:
            reply, self._reply = self._reply, None
            reply({"pid": self.pid}, None, self._theirs)
        elif not self.pid:
            self.reaped(FAILED_STATUS)
        self._close_theirs()

    def _close_theirs(self) -> None:
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def reaped(self, status: int) -> None:
        """The process has ended (or the one that should have made it, without doing so)."""
        while self._channel is not None and status != FAILED_STATUS:
            self._heard(0)
        if self._reply is not None:
            reply, self._reply = self._reply, None
            reply(None, self._failure or Internal("the process ended before its program ran"), [])
            return
        self._ended(state.exit_code(status))

    def kill(self, number: int) -> None:
        """Send a signal to the process and its group (it leads a session of its own)."""
        for send in (os.killpg, os.kill):
            try:
                send(self.pid, number)
            except ProcessLookupError:
                pass


def _task(container: Container, request: ExecRequest) -> process.Process:
    """Return what the process is to be; called in the child."""
    wanted = {**plainjson.loads(container.process), **request.process, "terminal": request.terminal}
    return process.parse(wanted, container.read_filter())


FAILED_STATUS = 126 << 8
