"""Verbs of the builder: build, look at a Dockerfile, look into an image."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.base.units import parse_size
from kestrel.build import BuildRequest as Build
from kestrel.build import FailedRun
from kestrel.build.check import Checked
from kestrel.build.collect import WEEK, Policy
from kestrel.build.contexts import is_elsewhere
from kestrel.build.events import Entered
from kestrel.build.executor import Limits
from kestrel.build.outputs import parse_output
from kestrel.build.request import HOST_NETWORK
from kestrel.control import words
from kestrel.control.images import Relay, relayed
from kestrel.control.requests import BuilderPruneRequest, BuildRequest, CheckRequest, ImageRequest, Request
from kestrel.control.services import Emit, Services, Verbs
from kestrel.control.streams import Detached, Frames
from kestrel.dockerfile.decode import parse_duration
from kestrel.dockerfile.lint import Finding


async def build(services: Services, request: BuildRequest, emit: Emit) -> Any:
    """Build an image from a Dockerfile."""
    async with relayed(emit) as progress:
        if not request.verify:
            return await services.builder.build(_request(request), progress)
        verified = await services.builder.verify(_request(request), progress)
        return {**msgspec.to_builtins(verified.result), "difference": verified.difference, "verified": True}


async def build_and_enter(services: Services, request: BuildRequest, frames: Frames) -> None:
    """Build an image, and let the client into a RUN that fails: its input and output are a shell's then."""
    client = _Client(frames)

    async def say(event: Any) -> None:
        await frames.say({"event": event})

    async with relayed(say) as progress:
        look = partial(client.let_in, progress)
        building = asyncio.ensure_future(services.builder.build(_request(request), progress, look))
        if not await client.stayed(building):
            return
    await frames.say({"result": msgspec.to_builtins(building.result())})


class _Client:
    """Somebody who waits for a build, and may go away at any moment; then the build is of no use."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._gone = asyncio.Event()
        self._entering = asyncio.Lock()
        self._watch = asyncio.create_task(self._watched())

    async def stayed(self, building: "asyncio.Future[Any]") -> bool:
        """Wait for the end of a build; False when the client went first, and the build is over for that reason."""
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait([building, gone], return_when=asyncio.FIRST_COMPLETED)
            return building.done()
        finally:
            for task in (gone, self._watch, building):
                task.cancel()
            await asyncio.wait([gone, self._watch, building])

    async def let_in(self, progress: Relay, failed: FailedRun) -> None:
        """Give the client a terminal in the place where a RUN failed, one at a time."""
        async with self._entering:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            progress(Entered(step=failed.step, message=failed.error.message, shell=" ".join(failed.shell)))
            await progress.drained()
            try:
                async with failed.enter(tty=True) as process:
                    await self._frames.pump(process, process.kill)
                    await self._frames.say({"exit": await process.wait()})
            except Detached:
                self._gone.set()
            except KestrelError as error:
                await self._frames.say({"event": {"event": "warned", "text": f"no shell: {error.message}"}})
                await self._frames.say({"exit": 1})
            finally:
                self._watch = asyncio.create_task(self._watched())

    async def _watched(self) -> None:
        await self._frames.silence()
        self._gone.set()


async def check(services: Services, request: CheckRequest, _emit: Emit) -> Any:
    """Say what could be said about a Dockerfile without building it."""
    wanted = replace(_request(request), registries=request.registries)
    if request.ask == "targets":
        return await services.builder.targets(wanted)
    if request.ask == "context_report":
        return await services.builder.context_report(wanted)
    if request.ask == "outline":
        return await services.builder.outline(wanted)
    if request.ask == "fix":
        fixed = await services.builder.fix(wanted)
        return {"text": fixed.text, "fixes": _findings(fixed.fixes), **_checked(fixed.left)}
    return _checked(await services.builder.check(wanted))


def _checked(checked: Checked) -> dict[str, Any]:
    return {"findings": _findings(checked.findings), "error": checked.error}


def _findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
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
        for found in findings
    ]


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


async def prune(services: Services, request: BuilderPruneRequest, _emit: Emit) -> Any:
    """Let go of what the builder keeps, saying of each thing why it goes or stays."""
    unused_for = parse_duration(request.unused_for) if request.unused_for else WEEK
    if unused_for is None:
        raise InvalidArgument(f"invalid duration {request.unused_for!r}", hint="write such as 72h or 30m")
    ceiling = parse_size(request.keep) if request.keep else None
    policy = Policy(unused_for=unused_for, ceiling=ceiling, everything=request.all)
    done = await services.builder.collect(policy, dry_run=request.dry_run)
    return {
        "freed": done.freed,
        "judged": [
            {
                "kind": each.held.kind,
                "name": each.held.name,
                "size": each.held.size,
                "cost": each.cost,
                "used": each.held.used,
                "where": each.held.where,
                "removed": each.removed,
                "reason": each.reason,
            }
            for each in done.judged
        ],
    }


async def logs(services: Services, _request: Request, _emit: Emit) -> Any:
    """List the logs of builds."""
    found = await asyncio.to_thread(services.builder.logs)
    return [{"name": log.name, "path": str(log.path), "size": log.size, "how": log.how} for log in found]


async def log(services: Services, request: ImageRequest, _emit: Emit) -> Any:
    """Say where one log is."""
    return {"path": str((await asyncio.to_thread(services.builder.log, request.name)).path)}


def _request(request: BuildRequest) -> Build:
    return Build(
        context=request.context if is_elsewhere(request.context) else Path(request.context),
        dockerfile=_dockerfile(request),
        tags=request.tags,
        build_args=dict(_pair(text) for text in request.build_args),
        target=request.target,
        no_cache=request.no_cache,
        no_cache_stages=frozenset(name for text in request.no_cache_stages for name in text.split(",")),
        pull=request.pull,
        network=request.network or "default",
        hosts=tuple(_host(text) for text in request.hosts),
        hostname=request.hostname,
        host_users=_users(request.userns),
        limits=Limits(
            memory=parse_size(request.memory) if request.memory else 0,
            cpu_millis=round(request.cpus * 1000),
            shm_size=parse_size(request.shm_size) if request.shm_size else 0,
            ulimits=words.ulimits(request.ulimits),
        ),
        allow=frozenset(_right(text) for text in request.allow),
        secrets={**{name: Path(path) for name, path in request.secrets.items()}, **request.secret_values},
        ssh=dict(_agent(text) for text in request.ssh),
        contexts=dict(_context(text) for text in request.contexts),
        labels=dict(_pair(text) for text in request.labels),
        outputs=tuple(parse_output(text) for text in request.outputs),
    )


def _dockerfile(request: BuildRequest) -> Path | bytes | None:
    if request.dockerfile_text is not None:
        return request.dockerfile_text
    return Path(request.dockerfile) if request.dockerfile else None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidArgument(f"invalid build argument {text!r}", hint="write NAME=VALUE")
    return name, value


def _host(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=" if "=" in text else ":")
    try:
        return name, str(ip_address(address.strip("[]")))
    except ValueError:
        raise InvalidArgument(f"invalid host {text!r}", hint="write NAME:ADDRESS") from None


def _agent(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise InvalidArgument(f"invalid ssh agent {text!r}", hint="write NAME=SOCKET, or NAME with SSH_AUTH_SOCK set")
    return name, Path(path)


def _users(text: str) -> bool:
    if text not in ("", "host"):
        raise InvalidArgument(f"unknown --userns {text!r}", hint="there is host; without it each RUN has its own users")
    return text == "host"


def _right(text: str) -> str:
    if text != HOST_NETWORK:
        raise InvalidArgument(f"there is no right {text!r} to give", hint=f"there is {HOST_NETWORK}")
    return text


def _context(text: str) -> tuple[str, Path | str]:
    name, equals, where = text.partition("=")
    if name and equals and is_elsewhere(where):
        return name, where
    if not name or not equals or not Path(where).is_dir():
        raise InvalidArgument(
            f"invalid build context {text!r}", hint="write NAME=DIRECTORY, NAME=URL or NAME=docker-image://IMAGE"
        )
    return name, Path(where)


ENDED_WITH_CLIENT = frozenset({"build"})
"""Verbs that are cancelled when the command that asked ends, as by Ctrl-C."""

VERBS: Verbs = {
    "build": (BuildRequest, build),
    "build-check": (CheckRequest, check),
    "builder-prune": (BuilderPruneRequest, prune),
    "builder-logs": (Request, logs),
    "builder-log": (ImageRequest, log),
    "contents": (ImageRequest, contents),
}
STREAMS = {"build": (BuildRequest, build_and_enter)}
