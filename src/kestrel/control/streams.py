"""The taken-over connection of `run`, `exec` and `attach`: docker's frames, plus one channel for words.

Channels 0 to 2 are the process's own; an empty frame on 0 closes its stdin. Channel 3 carries JSON: from the client
`{"resize": [rows, columns]}`, `{"signal": "TERM"}`, `{"detach": true}`; to the client `{"event": ...}` and at the end
`{"exit": code}` or `{"error": ...}`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from kestrel.base.errors import DataLoss, KestrelError
from kestrel.control import answers
from kestrel.http.stdcopy import Decoder, encode
from kestrel.http.upgrade import RawStream

STDIN, STDOUT, STDERR, CONTROL = range(4)


class Process(Protocol):
    """A process at the other end: what an engine session offers."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as (1 or 2, bytes); None when all output has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand bytes to stdin."""
        ...

    async def close_stdin(self) -> None:
        """Say that stdin has ended."""
        ...

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters."""
        ...


class Detached(Exception):  # noqa: N818 - the client's wish, not a failure
    """The client typed its detach keys, or went away."""


class Frames:
    """The client's end, framed."""

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self._decoder = Decoder()
        self._arrived: deque[bytes] = deque()

    async def send(self, channel: int, data: bytes) -> None:
        """Send one frame; raises ConnectionResetError when the client has gone."""
        await self._raw.write(encode(channel, data))

    async def say(self, message: dict[str, Any]) -> None:
        """Send one control message."""
        await self.send(CONTROL, answers.encode(message))

    async def receive(self) -> bytes:
        """Return the next bytes of the client's stdin, none at its end. Raises DataLoss when the client went away."""
        while not self._arrived:
            data = await self._raw.read()
            if not data:
                raise DataLoss("the command went away before it had sent everything")
            self._arrived.extend(chunk.data for chunk in self._decoder.feed(data) if chunk.stream == STDIN)
        return self._arrived.popleft()

    def close(self) -> None:
        """Flush and close."""
        self._raw.close()

    async def pump(self, process: Process, kill: Callable[[str], Awaitable[None]]) -> None:
        """Carry bytes both ways until the process's output ends. Raises Detached when the client leaves first."""
        inward = asyncio.create_task(self._inward(process, kill))
        outward = asyncio.create_task(self._outward(process))
        try:
            await asyncio.wait([inward, outward], return_when=asyncio.FIRST_COMPLETED)
            if not outward.done():
                inward.result()  # raises Detached; plain end of the client's words is no reason to stop
                await outward
            outward.result()
        finally:
            inward.cancel()
            outward.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)

    async def silence(self) -> None:
        """Return when the client has gone; what it says before is for nobody."""
        while await self._raw.read():
            pass

    async def _outward(self, process: Process) -> None:
        try:
            while (chunk := await process.read()) is not None:
                await self.send(*chunk)
        except ConnectionResetError:
            raise Detached from None

    async def _inward(self, process: Process, kill: Callable[[str], Awaitable[None]]) -> None:
        while data := await self._raw.read():
            for chunk in self._decoder.feed(data):
                if chunk.stream == STDIN and chunk.data:
                    await process.write(chunk.data)
                elif chunk.stream == STDIN:
                    await process.close_stdin()
                elif chunk.stream == CONTROL:
                    await self._obey(msgspec.json.decode(chunk.data), process, kill)
        raise Detached

    async def _obey(self, message: Any, process: Process, kill: Callable[[str], Awaitable[None]]) -> None:
        match message:
            case {"resize": [int(rows), int(columns)]}:
                await process.resize(columns, rows)
            case {"signal": str(name)}:
                try:
                    await kill(name)
                except KestrelError:
                    pass  # the process ended while the signal was on its way
            case {"detach": True}:
                raise Detached
