"""Verbs whose answer or question is a file: save, load, export, import. It travels over the taken-over connection.

The work is done in threads that read and write as if a file were there; each call waits for the loop to carry it, so
a slow client slows the work down and nothing piles up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kestrel.base.clock import SystemClock, rfc3339
from kestrel.control.images import describe
from kestrel.control.requests import ExportRequest, ImportRequest, Named, Nothing, Request
from kestrel.control.services import Services
from kestrel.control.streams import STDOUT, Frames
from kestrel.oci.config import ImageConfig
from kestrel.oci.platform import Platform

_PIECE = 256 * 1024


class _Outgoing:
    """A `Sink` at whose other end the client writes a file."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:
        self._waiting += data
        if len(self._waiting) >= _PIECE:
            self.flush()
        return len(data)

    def flush(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            asyncio.run_coroutine_threadsafe(self._frames.send(STDOUT, data), self._loop).result()


class _Incoming:
    """A `Source` that the client's file is."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        if not self._rest and not self._ended:
            self._rest = asyncio.run_coroutine_threadsafe(self._frames.receive(), self._loop).result()
            self._ended = not self._rest
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


async def save(services: Services, request: Named, frames: Frames) -> None:
    """Send images as one tar, an OCI layout and a docker archive at once."""
    sink = _Outgoing(frames)
    await services.images.save(request.names, sink)
    await _end(sink, frames)


async def export(services: Services, request: ExportRequest, frames: Frames) -> None:
    """Send the files of a container as a tar."""
    sink = _Outgoing(frames)
    await services.engine.export(request.name, sink)
    await _end(sink, frames)


async def _end(sink: _Outgoing, frames: Frames) -> None:
    await asyncio.to_thread(sink.flush)
    await frames.say({"exit": 0})


async def load(services: Services, _request: Nothing, frames: Frames) -> None:
    """Take images in out of such a tar."""
    found = await services.images.load(_Incoming(frames))
    await frames.say({"event": {"images": [describe(image) for image in found]}})
    await frames.say({"exit": 0})


async def import_(services: Services, request: ImportRequest, frames: Frames) -> None:
    """Make an image of a root filesystem's tar."""
    host = Platform.host()
    config = ImageConfig(
        created=rfc3339(SystemClock().now()), architecture=host.architecture, variant=host.variant, os=host.os
    )
    names = [request.name] if request.name else []
    image = await services.images.import_files(_Incoming(frames), config, names=names)
    await frames.say({"event": {"images": [describe(image)]}})
    await frames.say({"exit": 0})


STREAMS: Mapping[str, tuple[type[Request], Callable[[Services, Any, Frames], Awaitable[None]]]] = {
    "save": (Named, save),
    "load": (Nothing, load),
    "export": (ExportRequest, export),
    "import": (ImportRequest, import_),
}
