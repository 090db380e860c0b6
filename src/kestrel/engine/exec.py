"""A second process in a running container, with the confinement of the first."""

from dataclasses import dataclass
from typing import Any

from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.engine import nameservice
from kestrel.engine import spec as specs
from kestrel.engine.facts import identity_within
from kestrel.engine.model import Container, ContainerState, Security
from kestrel.engine.parts import Parts
from kestrel.engine.rights import capability_sets
from kestrel.engine.shims import ExecResult, Session, Shim


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """What to run. What is left empty is as for the container's own process."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False


async def open_session(parts: Parts, wanted: str, config: ExecConfig) -> Session:
    """Start the process and return its streams; closing the session before the process ends kills it."""
    container, shim = _running(parts, wanted)
    process = await _process(parts, container, config)
    return await shim.exec(container.id, process, terminal=config.tty, stdin=config.stdin)


async def sync(parts: Parts, wanted: str, config: ExecConfig, *, timeout: float, limit: int) -> ExecResult:
    """Run to the end and return exit code and output, `limit` bytes of each stream. Raises TimedOut after `timeout`."""
    container, shim = _running(parts, wanted)
    process = await _process(parts, container, config)
    return await shim.exec_sync(container.id, process, timeout=timeout, limit=limit)


def _running(parts: Parts, wanted: str) -> tuple[Container, Shim]:
    container = parts.store.container(wanted)
    shim = parts.shim(container)
    if container.state is not ContainerState.RUNNING or shim is None:
        raise FailedPrecondition(
            f"container {container.config.name} is not running",
            hint=f"start it: `kestrel start {container.config.name}`",
        )
    return container, shim


async def _process(parts: Parts, container: Container, config: ExecConfig) -> dict[str, Any]:
    if not config.command:
        raise InvalidArgument("no command to execute")
    image = await parts.images.resolve(container.image_id)
    own = container.config
    user = config.user or own.security.user or image.config.config.user
    identity = identity_within(container, user)
    facts = specs.Facts(
        identity=identity,
        image=image.config.config,
        hostname=nameservice.hostname(parts.store.sandbox(container.sandbox)),
        name_files=parts.sandbox_directory(container.sandbox),
        seccomp=None,
        volumes={},
    )
    security = Security(privileged=True) if config.privileged else own.security
    return {
        "terminal": config.tty,
        "args": list(config.command),
        "env": specs.environment((*own.env, *config.env), facts, tty=config.tty),
        "cwd": config.cwd or own.cwd or image.config.config.working_dir or "/",
        "user": specs.user(identity),
        "capabilities": capability_sets(security),
        "noNewPrivileges": own.security.no_new_privileges,
    }
