"""Verbs for images: pull, push, tag, list, remove, build, bootstrap."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from kestrel.base.errors import InvalidArgument
from kestrel.build import BuildRequest as Build
from kestrel.build.outputs import parse_output
from kestrel.control.requests import (
    BootstrapRequest,
    BuildRequest,
    CheckRequest,
    CopyRequest,
    ImageRequest,
    ImagesRequest,
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


@asynccontextmanager
async def relayed(emit: Emit) -> AsyncIterator[Callable[[Any], None]]:
    """Give a plain callback, usable from any thread, whose events are sent in order before the block ends."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def send() -> None:
        while (event := await queue.get()) is not None:
            await emit(event)

    sender = asyncio.create_task(send())

    def relay(event: Any) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, event)

    try:
        yield relay
    finally:
        loop.call_soon(queue.put_nowait, None)
        await sender


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


async def build(services: Services, request: BuildRequest, emit: Emit) -> Any:
    """Build an image from a Dockerfile."""
    async with relayed(emit) as progress:
        if not request.verify:
            return await services.builder.build(_request(request), progress)
        verified = await services.builder.verify(_request(request), progress)
        return {**msgspec.to_builtins(verified.result), "difference": verified.difference, "verified": True}


async def check(services: Services, request: CheckRequest, _emit: Emit) -> Any:
    """Say what could be said about a Dockerfile without building it."""
    wanted = _request(request)
    if request.ask == "targets":
        return await services.builder.targets(wanted)
    if request.ask == "outline":
        return await services.builder.outline(wanted)
    checked = await services.builder.check(wanted)
    findings = [
        {
            "rule": found.rule.name,
            "detail": found.detail,
            "description": found.rule.description,
            "url": found.rule.url,
            "line": found.line,
            "last": found.last,
            "advice": found.advice,
            "fix": found.fix,
        }
        for found in checked.findings
    ]
    return {"findings": findings, "error": checked.error}


async def contents(services: Services, request: ImageRequest, _emit: Emit) -> Any:
    """Say what the layers of an image hold, and which keys were left in it."""
    found = await services.builder.contents(request.name)
    return {
        "size": found.size,
        "wasted": found.wasted,
        "layers": [
            {
                "created_by": layer.created_by,
                "diff_id": layer.diff_id,
                "size": layer.size,
                "files": layer.files,
                "wasted": layer.wasted,
                "waste": [
                    {
                        "why": each.why,
                        "remedy": each.remedy,
                        "size": each.size,
                        "count": each.count,
                        "largest": [path for _, path in each.paths],
                    }
                    for each in layer.waste.values()
                ],
            }
            for layer in found.layers
        ],
        "keys": [
            {
                "what": key.what,
                "where": key.where,
                "line": key.line,
                "created_by": key.created_by,
                "removed": key.removed,
            }
            for key in found.keys
        ],
    }


def _request(request: BuildRequest) -> Build:
    return Build(
        context=Path(request.context),
        dockerfile=Path(request.dockerfile) if request.dockerfile else None,
        tags=request.tags,
        build_args=dict(_pair(text) for text in request.build_args),
        target=request.target,
        no_cache=request.no_cache,
        pull=request.pull,
        network=request.network or "default",
        secrets=dict(_secret(text) for text in request.secrets),
        ssh=dict(_agent(text) for text in request.ssh),
        contexts=dict(_context(text) for text in request.contexts),
        labels=dict(_pair(text) for text in request.labels),
        outputs=tuple(parse_output(text) for text in request.outputs),
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidArgument(f"invalid build argument {text!r}", hint="write NAME=VALUE")
    return name, value


def _secret(text: str) -> tuple[str, Path]:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    source = fields.get("src") or fields.get("source")
    if not fields.get("id") or not source:
        raise InvalidArgument(f"invalid secret {text!r}", hint="write id=NAME,src=FILE")
    return fields["id"], Path(source)


def _agent(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise InvalidArgument(f"invalid ssh agent {text!r}", hint="write NAME=SOCKET, or NAME with SSH_AUTH_SOCK set")
    return name, Path(path)


def _context(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not name or not equals or not Path(path).is_dir():
        raise InvalidArgument(f"invalid build context {text!r}", hint="write NAME=DIRECTORY")
    return name, Path(path)


VERBS: Verbs = {
    "images": (ImagesRequest, images),
    "pull": (ImageRequest, pull),
    "push": (ImageRequest, push),
    "copy": (CopyRequest, copy),
    "tag": (TagRequest, tag),
    "rmi": (RemoveRequest, rmi),
    "bootstrap": (BootstrapRequest, bootstrap),
    "build": (BuildRequest, build),
    "build-check": (CheckRequest, check),
    "contents": (ImageRequest, contents),
}
