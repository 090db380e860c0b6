"""Streams of a process as the doors want them: one `read` for both outputs, and one way to know the end."""

from collections.abc import Awaitable, Callable

from kestrel.base.errors import FailedPrecondition
from kestrel.engine import shims
from kestrel.engine.signals import number

STREAMS = {"stdout": 1, "stderr": 2}


class Session:
    """A process's streams. Whoever opened it closes it; closing an exec that still runs kills it."""

    def __init__(self, inner: shims.Session, end: Callable[[], Awaitable[int]]) -> None:
        self._inner = inner
        self._end = end
        self._output = inner.output.both()

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as (1 for stdout or 2 for stderr, bytes); None when both have ended."""
        async for name, data in self._output:
            return STREAMS[name], data
        return None

    async def write(self, data: bytes) -> None:
        """Hand bytes to standard input; dropped when there is none, or the process has gone."""
        await self._inner.write(data)

    async def close_stdin(self) -> None:
        """Say that no more input comes; output goes on."""
        await self._inner.close_stdin()

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal in characters."""
        await self._inner.resize(height, width)

    async def wait(self) -> int:
        """Return the exit code, 128 + signal when a signal ended it."""
        return await self._end()

    async def kill(self, name: str) -> None:
        """Send a signal to an exec by name. An attachment is told that this is not its business."""
        if not isinstance(self._inner, shims.ExecSession):
            raise FailedPrecondition("an attachment has no process of its own", hint="signal the container")
        await self._inner.kill(number(name))

    async def close(self) -> None:
        """Let go. May be called twice."""
        await self._inner.close()
