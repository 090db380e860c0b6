"""Verbs for images: pull, push, tag, list, remove, bootstrap."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kestrel.control.requests import (
    BootstrapRequest,
    CopyRequest,
    DiffRequest,
    ImageRequest,
    ImagesRequest,
    LoginRequest,
    RemoveRequest,
    TagRequest,
)
from kestrel.control.services import Emit, Services, Verbs
from kestrel.images import Image
from kestrel.oci.platform import Platform


def describe(image: Image, *, full: bool = False) -> dict[str, Any]:
    """Say what an image is; with `full`, its whole configuration and its layers."""
    short = {
        "id": image.id,
        "digest": image.digest,
        "names": list(image.names),
        "size": image.size,
        "created": image.created,
    }
    return {**short, "layers": list(image.layers), "config": image.config.to_json()} if full else short


class Relay:
    """A plain callback, usable from any thread, whose events are sent one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, event: Any) -> None:
        """Take an event."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def send(self, emit: Emit) -> None:
        """Send what comes, without end."""
        while True:
            event = await self._queue.get()
            try:
                await emit(event)
            finally:
                self._queue.task_done()

    async def drained(self) -> None:
        """Return when all that was given so far is sent."""
        await asyncio.sleep(0)  # what was given just now is put into the queue by the loop
        await self._queue.join()


@asynccontextmanager
async def relayed(emit: Emit) -> AsyncIterator[Relay]:
    """Give a relay whose events are sent before the block ends; a client that has gone ends it with the error."""
    relay = Relay()
    sender = asyncio.create_task(relay.send(emit))
    try:
        yield relay
    finally:
        drained = asyncio.create_task(relay.drained())
        await asyncio.wait([sender, drained], return_when=asyncio.FIRST_COMPLETED)
        for task in (sender, drained):
            task.cancel()
        await asyncio.gather(sender, drained, return_exceptions=True)
    if not sender.cancelled():
        sender.result()


async def images(services: Services, request: ImagesRequest, _emit: Emit) -> Any:
    """List images, or the one that is named."""
    found = [await services.images.resolve(request.name)] if request.name else await services.images.list()
    return [describe(image) for image in found]


async def pull(services: Services, request: ImageRequest, emit: Emit) -> Any:
    """Fetch an image."""
    async with relayed(emit) as progress:
        return describe(await services.images.pull(request.name, progress=progress))


async def push(services: Services, request: ImageRequest, emit: Emit) -> Any:
    """Send an image to the registry that its name says."""
    async with relayed(emit) as progress:
        digest = await services.images.push(request.name, progress=progress)
    return {"name": request.name, "digest": digest}


async def diff(services: Services, request: DiffRequest, _emit: Emit) -> Any:
    """Say what sets two images apart."""
    return await services.images.diff(request.old, request.new)


async def login(services: Services, request: LoginRequest, _emit: Emit) -> Any:
    """Try credentials at a registry and keep them."""
    return {"kept": await services.logins.login(request.registry, request.username, request.password)}


async def logout(services: Services, request: LoginRequest, _emit: Emit) -> Any:
    """Forget the credentials of a registry."""
    await services.logins.logout(request.registry)
    return {}


async def copy(services: Services, request: CopyRequest, emit: Emit) -> Any:
    """Copy an image from one registry to another."""
    platform = Platform.parse(request.platform) if request.platform else None
    async with relayed(emit) as progress:
        digest = await services.images.copy(
            request.source, request.target, platform=platform, referrers=request.referrers, progress=progress
        )
    return {"name": request.target, "digest": digest}


async def tag(services: Services, request: TagRequest, _emit: Emit) -> Any:
    """Give an image another name."""
    await services.images.tag(request.source, request.target)
    return {}


async def rmi(services: Services, request: RemoveRequest, _emit: Emit) -> Any:
    """Remove names, and images that have none left."""
    return [await services.images.remove(name, force=request.force) for name in request.names]


async def bootstrap(services: Services, request: BootstrapRequest, emit: Emit) -> Any:
    """Make a base image out of Debian packages."""
    async with relayed(emit) as progress:
        return await services.bootstrap(request.name, request.variant, request.include, progress)


VERBS: Verbs = {
    "images": (ImagesRequest, images),
    "pull": (ImageRequest, pull),
    "push": (ImageRequest, push),
    "diff": (DiffRequest, diff),
    "login": (LoginRequest, login),
    "logout": (LoginRequest, logout),
    "copy": (CopyRequest, copy),
    "tag": (TagRequest, tag),
    "rmi": (RemoveRequest, rmi),
    "bootstrap": (BootstrapRequest, bootstrap),
}
