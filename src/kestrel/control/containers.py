"""Verbs for containers: words in, engine calls out. Every rule is the engine's."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from kestrel.base.clock import rfc3339_nano
from kestrel.base.errors import InvalidArgument, KestrelError, NotFound
from kestrel.base.units import parse_size
from kestrel.control import words
from kestrel.control.images import describe as describe_image
from kestrel.control.requests import (
    CommitRequest,
    ExecRequest,
    KillRequest,
    LogsRequest,
    Named,
    PsRequest,
    RemoveRequest,
    Request,
    RunRequest,
    StopRequest,
)
from kestrel.control.services import Emit, Services, Verbs
from kestrel.control.streams import STDERR, STDOUT, Detached, Frames
from kestrel.engine import (
    Container,
    ContainerConfig,
    ContainerState,
    Engine,
    ExecConfig,
    Mount,
    SandboxConfig,
    Security,
    Session,
)
from kestrel.engine import Resources as Limits
from kestrel.engine.signals import number as signal_number
from kestrel.images import Image
from kestrel.logs import LogOptions
from kestrel.logs import read as read_log

IMAGE_NAME = "io.kubernetes.container.image"
"""Annotation of a pod's container: the name its manifest gives; the image itself is known by digest."""


def run_config(request: RunRequest) -> ContainerConfig:
    """Turn docker's words into a container's configuration. Raises InvalidArgument that quotes the word."""
    seccomp, no_new_privileges = _security(request.security_opt)
    network = SandboxConfig(
        name=request.name,
        hostname=request.hostname,
        network=_network(request.network),
        users=_users(request.userns),
        host_pid=_host(request.pid, "--pid"),
        host_ipc=_host(request.ipc, "--ipc"),
        ports=tuple(map(words.port, request.publish)),
        names=(request.name,) if request.name else (),
    )
    return ContainerConfig(
        name=request.name,
        image=request.image,
        command=None if request.entrypoint is None else tuple(filter(None, [request.entrypoint])),
        args=request.command,
        env=tuple(_variables(request.env)),
        cwd=request.workdir,
        tty=request.tty,
        stdin=request.interactive,
        stdin_once=request.interactive and not request.detach,
        mounts=(*map(words.volume, request.volume), *(Mount(kind="tmpfs", target=path) for path in request.tmpfs)),
        resources=Limits(
            memory=parse_size(request.memory) if request.memory else 0,
            cpu_millis=round(request.cpus * 1000),
            pids=request.pids_limit,
            shm_size=parse_size(request.shm_size) if request.shm_size else 0,
            ulimits=words.ulimits(request.ulimit),
        ),
        security=Security(
            privileged=request.privileged,
            user=request.user,
            add_capabilities=request.cap_add,
            drop_capabilities=request.cap_drop,
            no_new_privileges=no_new_privileges,
            read_only_root=request.read_only,
            seccomp=seccomp,
        ),
        devices=tuple(map(words.device, request.device)),
        sandbox_config=network,
        stop_signal=request.stop_signal,
        auto_remove=request.rm,
        labels=dict(map(words.label, request.label)),
    )


def _network(name: str) -> str:
    if name not in ("bridge", "host", "none"):
        raise InvalidArgument(f"unknown network {name!r}", hint="there are bridge, host and none")
    return name


def _users(name: str) -> str:
    words = {"": "auto", "auto": "own", "private": "own", "host": "host"}  # podman's, of which docker has `host`
    if name not in words:
        raise InvalidArgument(f"unknown --userns {name!r}", hint="there are host and private")
    return words[name]


def _host(name: str, flag: str) -> bool:
    if name not in ("", "private", "host"):
        raise InvalidArgument(f"unknown {flag} {name!r}", hint="there are host and private")
    return name == "host"


def _security(options: tuple[str, ...]) -> tuple[str, bool]:
    seccomp, no_new_privileges = "default", False
    for option in options:
        key, _, value = option.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges":
            no_new_privileges = value != "false"
        elif key == "seccomp" and value:
            seccomp = value
        else:
            raise InvalidArgument(
                f"unknown security option {option!r}", hint="there are no-new-privileges and seccomp=unconfined|FILE"
            )
    return seccomp, no_new_privileges


def _variables(entries: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise InvalidArgument(f"invalid variable {entry!r}", hint="write NAME=VALUE")
        pairs.append((name, value))
    return pairs


async def run(services: Services, request: RunRequest, frames: Frames) -> None:
    """Create, start and, unless detached, carry the process's streams until it ends."""
    try:
        await _run(services, request, frames)
    except KestrelError as error:
        error.context.setdefault("stage", "run")
        raise


async def _run(services: Services, request: RunRequest, frames: Frames) -> None:
    engine = services.engine
    config = run_config(request)
    await _ensure_image(services, request, frames)
    container = await engine.create(config)
    try:
        if request.detach:
            await engine.start(container.id)
            await frames.say({"event": {"id": container.id}})
            await frames.say({"exit": 0})
            return
        session = await engine.start_attached(container.id)
    except KestrelError:
        if request.rm:
            await _remove(engine, container.id)
        raise
    try:
        await frames.pump(session, lambda name: engine.kill(container.id, signal_number(name)))
    except Detached:
        await frames.say({"exit": 0})
        return
    finally:
        await session.close()
    ended = await engine.wait(container.id)
    await frames.say({"exit": ended.exit_code})


async def _remove(engine: Engine, container: str) -> None:
    try:
        await engine.remove(container, force=True)
    except NotFound:
        pass  # the engine was quicker


async def _ensure_image(services: Services, request: RunRequest, frames: Frames) -> Image:
    if request.pull not in ("always", "missing", "never"):
        raise InvalidArgument(f"unknown pull policy {request.pull!r}", hint="there are always, missing and never")
    if request.pull != "always":
        try:
            return await services.images.resolve(request.image)
        except NotFound:
            if request.pull == "never":
                raise
    loop = asyncio.get_running_loop()
    await frames.say({"event": {"status": f"image {request.image} is not here; pulling it"}})

    def progress(event: Any) -> None:
        loop.call_soon_threadsafe(lambda: loop.create_task(frames.say({"event": event})))

    return await services.images.pull(request.image, progress=progress)


async def exec_(services: Services, request: ExecRequest, frames: Frames) -> None:
    """Run a second process in a running container."""
    config = ExecConfig(
        command=request.command,
        env=tuple(_variables(request.env)),
        cwd=request.workdir,
        user=request.user,
        tty=request.tty,
        stdin=request.interactive,
        privileged=request.privileged,
    )
    session = await services.engine.exec(request.name, config)
    try:
        if request.detach:
            await _let_go(session, frames)
            return
        await frames.pump(session, session.kill)
        await frames.say({"exit": await session.wait()})
    except Detached:
        pass
    finally:
        await session.close()


async def _let_go(session: Session, frames: Frames) -> None:
    """Tell the client that it may go, and throw away what the process writes until it ends."""
    await frames.say({"exit": 0})
    while await session.read() is not None:
        pass
    await session.wait()


async def start(services: Services, request: Named, _emit: Emit) -> Any:
    """Start containers that were created or have ended."""
    for name in request.names:
        await services.engine.start(name)
    return list(request.names)


async def stop(services: Services, request: StopRequest, _emit: Emit) -> Any:
    """Stop several at once; the time allowed runs for all of them together."""
    await asyncio.gather(*(services.engine.stop(name, timeout=request.time) for name in request.names))
    return list(request.names)


async def kill(services: Services, request: KillRequest, _emit: Emit) -> Any:
    """Send a signal."""
    number = signal_number(request.signal)
    for name in request.names:
        await services.engine.kill(name, number)
    return list(request.names)


async def wait(services: Services, request: Named, _emit: Emit) -> Any:
    """Return exit codes, in the order of the names."""
    ended = await asyncio.gather(*(services.engine.wait(name) for name in request.names))
    return [container.exit_code for container in ended]


async def rm(services: Services, request: RemoveRequest, _emit: Emit) -> Any:
    """Remove containers."""
    for name in request.names:
        await services.engine.remove(name, force=request.force)
    return list(request.names)


async def commit(services: Services, request: CommitRequest, _emit: Emit) -> Any:
    """Make an image of a container."""
    image = await services.engine.commit(request.name, request.names, author=request.author, comment=request.message)
    return describe_image(image)


async def ps(services: Services, request: PsRequest, _emit: Emit) -> Any:
    """List containers, the newest first."""
    found = [c for c in services.engine.containers() if request.all or c.state is ContainerState.RUNNING]
    return [_summary(services, c) for c in sorted(found, key=lambda c: c.created, reverse=True)]


def _summary(services: Services, container: Container) -> dict[str, Any]:
    sandbox = services.engine.find_sandbox(container.sandbox)
    ports = sandbox.ports if sandbox is not None and container.state is ContainerState.RUNNING else ()
    return {
        "id": container.id,
        "name": container.config.name,
        "image": container.config.annotations.get(IMAGE_NAME, container.config.image),
        "command": list(container.config.args or container.config.command or ()),
        "state": str(container.state),
        "exit_code": container.exit_code,
        "reason": container.reason,
        "created": container.created,
        "started": container.started,
        "finished": container.finished,
        "address": sandbox.address if sandbox is not None else "",
        "ports": [
            f"{p.host_ip or '0.0.0.0'}:{p.host_port}->{p.container_port}/{p.protocol}" for p in ports if p.host_port
        ],
        "labels": dict(container.config.labels),
    }


async def inspect(services: Services, request: Named, _emit: Emit) -> Any:
    """Return all that is known of containers or images."""
    found = []
    for name in request.names:
        try:
            container = services.engine.container(name)
        except NotFound:
            try:
                found.append(describe_image(await services.images.resolve(name), full=True))
            except NotFound:
                raise NotFound(
                    f"no such container or image: {name}", hint="see `kestrel ps -a` and `kestrel images`"
                ) from None
        else:
            document = msgspec.to_builtins(container)
            sandbox = services.engine.find_sandbox(container.sandbox)
            found.append({**document, "sandbox": msgspec.to_builtins(sandbox) if sandbox else container.sandbox})
    return found


async def logs(services: Services, request: LogsRequest, frames: Frames) -> None:
    """Send what a container wrote, each stream on its channel."""
    container = services.engine.container(request.name)
    options = LogOptions(tail=_tail(request.tail), since=_since(request.since), follow=request.follow)

    def ended() -> bool:
        latest = services.engine.find(container.id)
        return latest is None or latest.state is not ContainerState.RUNNING

    async for entry in read_log(Path(container.log_path), options, ended=ended):
        stamped = rfc3339_nano(entry.moment).encode() + b" " if request.timestamps else b""
        text = entry.text if entry.partial else entry.text + b"\n"
        await frames.send(STDERR if entry.stream == "stderr" else STDOUT, stamped + text)
    await frames.say({"exit": 0})


def _tail(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit():
        raise InvalidArgument(f"invalid number of lines {text!r}", hint="write a number, or all")
    return int(text)


def _since(text: str) -> int:
    """Read a moment or an age as nanoseconds since the epoch."""
    if not text:
        return 0
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match:
        return time.time_ns() - int(match[1]) * seconds[match[2]] * 1_000_000_000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"invalid time {text!r}", hint="write 10m, 2h or 2026-01-31T12:00:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000_000)


VERBS: Verbs = {
    "start": (Named, start),
    "stop": (StopRequest, stop),
    "kill": (KillRequest, kill),
    "wait": (Named, wait),
    "rm": (RemoveRequest, rm),
    "commit": (CommitRequest, commit),
    "ps": (PsRequest, ps),
    "inspect": (Named, inspect),
}
STREAMS: Mapping[str, tuple[type[Request], Callable[[Services, Any, Frames], Awaitable[None]]]] = {
    "run": (RunRequest, run),
    "exec": (ExecRequest, exec_),
    "logs": (LogsRequest, logs),
}
