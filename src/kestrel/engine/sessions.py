"""Sessions: the streams of a program that the shim holds, for asyncio.

An attacher's output passes through the shim (it goes to the log too), in frames over one socket; an exec's does not,
its pipes or its terminal are handed to us. Either way a session is read with `read`, and what is not read holds its
source back: nothing is buffered without a bound.
"""

import asyncio
import fcntl
import os
import signal
import socket
import struct
import termios
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kestrel.base.errors import InvalidArgument, KestrelError, Unavailable
from kestrel.runtime.messages import Exited

FRAME = struct.Struct("!BI")
CHUNK = 65536
HIGH = 1024 * 1024  # bytes of output kept for a session that is not read, before its source is held back


class Control(Protocol):
    """What a session needs of the shim's connection."""

    directory: Path

    async def resize(self, container_id: str, width: int, height: int) -> None:
        """Set a container's terminal size."""
        ...

    async def wait(self, container_id: str) -> Exited:
        """Wait for a container's end."""
        ...

    async def kill(self, container_id: str, number: int) -> None:
        """Signal a container's first process."""
        ...

    async def kill_exec(self, exec_id: int, number: int) -> None:
        """Signal a process that joined."""
        ...


async def writable(fd: int) -> None:
    """Wait until a descriptor takes more."""
    loop = asyncio.get_running_loop()
    room = asyncio.Event()
    loop.add_writer(fd, room.set)
    try:
        await room.wait()
    finally:
        loop.remove_writer(fd)


class Session:
    """A connection to a program's streams: what a door pumps to a client.

    `read` gives (1 or 2, bytes) for stdout or stderr in the order of arrival, None when both have ended; a terminal
    has only 1. A session that is not read holds the program's output back (an exec, a lossless attach) or is cut off.
    """

    def __init__(self, shim: Control, container_id: str) -> None:
        self._shim = shim
        self._container = container_id
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._queued = 0
        self._paused = False
        self._more = asyncio.Event()
        self._sources: dict[int, int] = {}  # descriptor -> stream number
        self._sink = -1
        self._writing = asyncio.Lock()

    async def read(self) -> "tuple[int, bytes] | None":
        """Return the next output."""
        while not self._chunks:
            if not self._sources:
                return None
            self._more.clear()
            await self._more.wait()
        number, data = self._chunks.popleft()
        self._queued -= len(data)
        if self._paused and self._queued < HIGH // 2:
            self._paused = False
            for fd in self._sources:
                self._loop.add_reader(fd, self._readable, fd)
        return number, data

    async def write(self, data: bytes) -> None:
        """Write to the program's input, waiting until it takes it; bytes for one that has none are dropped."""
        async with self._writing:
            view = memoryview(data)
            while view and self._sink >= 0:
                try:
                    view = view[os.write(self._sink, view) :]
                except BlockingIOError:
                    await writable(self._sink)
                except OSError:
                    self._close_sink()  # the program has closed its input, or has ended

    async def close_stdin(self) -> None:
        """End the program's input; its output goes on."""
        async with self._writing:
            self._close_sink()

    async def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size in characters."""
        await self._shim.resize(self._container, width, height)

    async def wait(self) -> int:
        """Return the program's exit code, 128 + signal when a signal ended it. Raises Unavailable with the shim."""
        return (await self._shim.wait(self._container)).exit_code

    async def kill(self, signal_or_name: "int | str" = signal.SIGKILL) -> None:
        """Send a signal (a number, `TERM` or `SIGTERM`) to the program."""
        await self._shim.kill(self._container, number_of(signal_or_name))

    async def close(self) -> None:
        """Let go of the streams."""
        for fd in list(self._sources):
            self._drop_source(fd)
        self._close_sink()

    # --- descriptors ---

    def _open(self, sources: Mapping[int, int], sink: int) -> None:
        self._sources = dict(sources)
        self._sink = sink
        for fd in (*self._sources, *((sink,) if sink >= 0 else ())):
            os.set_blocking(fd, False)
        for fd in self._sources:
            self._loop.add_reader(fd, self._readable, fd)

    def _readable(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: everybody has left the terminal
        if data:
            self._take(fd, data)
        else:
            self._drop_source(fd)
        self._more.set()

    def _take(self, fd: int, data: bytes) -> None:
        self._keep(self._sources[fd], data)

    def _keep(self, number: int, data: bytes) -> None:
        self._chunks.append((number, data))
        self._queued += len(data)
        if self._queued > HIGH and not self._paused:
            self._paused = True
            for fd in self._sources:
                self._loop.remove_reader(fd)

    def _drop_source(self, fd: int) -> None:
        if self._sources.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._more.set()

    def _close_sink(self) -> None:
        if self._sink >= 0:
            self._loop.remove_writer(self._sink)
            os.close(self._sink)
            self._sink = -1


class Attached(Session):
    """The session of an attacher: frames from the shim, raw input to it."""

    def __init__(self, shim: Control, container_id: str, sock: socket.socket, *, stdin: bool) -> None:
        super().__init__(shim, container_id)
        self._buffer = bytearray()
        self._socket = sock
        self._open({sock.fileno(): 0}, sock.fileno() if stdin else -1)
        if not stdin:
            sock.shutdown(socket.SHUT_WR)

    def _take(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - there is only one
        self._buffer += data
        while len(self._buffer) >= FRAME.size:
            number, length = FRAME.unpack_from(self._buffer)
            if len(self._buffer) < FRAME.size + length:
                break
            chunk = bytes(self._buffer[FRAME.size : FRAME.size + length])
            del self._buffer[: FRAME.size + length]
            self._keep(number, chunk)

    def _drop_source(self, fd: int) -> None:
        if self._sources.pop(fd, None) is not None:
            self._close_sink()
            self._loop.remove_reader(fd)
            self._socket.close()
        self._more.set()

    def _close_sink(self) -> None:
        """The socket goes both ways: closing one direction is a shutdown."""
        if self._sink < 0:
            return
        self._loop.remove_writer(self._sink)
        self._sink = -1
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the shim has closed it


class Exec(Session):
    """The session of an exec. It has an end of its own; leaving it before (`close`) kills the process."""

    def __init__(self, shim: Control, container_id: str, answer: Mapping[str, Any]) -> None:
        super().__init__(shim, container_id)
        self.pid: int = answer["pid"]
        self._identifier: int = answer["exec_id"]
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._master = -1

    def take(self, descriptors: Sequence[int], *, terminal: bool, stdin: bool) -> None:
        """Own the descriptors of the running process: its terminal's master, or [stdin,] stdout, stderr."""
        if terminal:
            self._master = os.dup(descriptors[0])
            self._open({descriptors[0]: 1}, self._master)
            return
        sink = descriptors[0] if stdin else -1
        stdout, stderr = descriptors[-2:]
        self._open({stdout: 1, stderr: 2}, sink)

    async def resize(self, width: int, height: int) -> None:
        """Tell its terminal its size in characters; without one, or after its end, nothing happens."""
        if self._master >= 0 and self._sink == self._master:
            size = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    async def wait(self) -> int:
        """Return the exit code."""
        return await asyncio.shield(self._code)

    async def kill(self, signal_or_name: "int | str" = signal.SIGKILL) -> None:
        """Send a signal to the process and its group."""
        await self._shim.kill_exec(self._identifier, number_of(signal_or_name))

    def exited(self, code: int) -> None:
        """The shim says that it has ended."""
        if not self._code.done():
            self._code.set_result(code)

    def lost(self) -> None:
        """The shim is gone, and with it the process."""
        if not self._code.done():
            self._code.set_exception(Unavailable("the shim is gone", directory=str(self._shim.directory)))
            self._code.exception()  # nobody has to ask

    async def close(self) -> None:
        """Close its streams, and kill it if it still runs."""
        await super().close()
        if not self._code.done():
            try:
                await self.kill()
            except KestrelError:
                pass


def number_of(signal_or_name: "int | str") -> int:
    """Return a signal's number for 15, "15", "TERM" or "SIGTERM". Raises InvalidArgument."""
    if isinstance(signal_or_name, int):
        return int(signal_or_name)
    text = signal_or_name.upper()
    if text.isdigit():
        return int(text)
    try:
        return signal.Signals[text if text.startswith("SIG") else f"SIG{text}"]
    except KeyError:
        raise InvalidArgument(f"unknown signal {signal_or_name!r}") from None
