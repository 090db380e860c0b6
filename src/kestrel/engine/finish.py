"""The end of a container, however it came: its exit is recorded before anyone is told.

Three ways lead here: the shim says that a process exited; the shim is gone, and its exit file or its absence tells;
the daemon was away and finds out at its next start. All of them write the same record.
"""

from dataclasses import replace

from kestrel.engine.model import Container, ContainerState
from kestrel.engine.parts import Parts
from kestrel.runtime.messages import Exited
from kestrel.runtime.state import read_exit

SIGKILLED = 137


def exited(parts: Parts, event: Exited) -> None:
    """Record an exit that was seen, unless its end is known already."""
    container = parts.store.containers.get(event.container_id)
    if container is None or container.state is ContainerState.EXITED:
        return
    ended = replace(
        container,
        state=ContainerState.EXITED,
        finished=event.moment,
        pid=0,
        exit_code=event.exit_code,
        oom_killed=event.oom,
        reason="OOMKilled" if event.oom else "Completed" if event.exit_code == 0 else "Error",
        message=_oom_message(container) if event.oom else "",
    )
    _record(parts, ended)


def lost(parts: Parts, sandbox: str, *, reason: str) -> None:
    """Record the end of every container of a sandbox whose shim is gone: from its exit file, or as killed."""
    for container in parts.store.containers_of(sandbox):
        if container.state is not ContainerState.RUNNING:
            continue
        known = read_exit(parts.sandbox_directory(sandbox), container.id)
        if known is not None:
            exited(parts, known)
        else:
            _record(
                parts,
                replace(
                    container,
                    state=ContainerState.EXITED,
                    finished=parts.clock.now(),
                    pid=0,
                    exit_code=SIGKILLED,
                    reason="ShimKilled",
                    message=reason,
                ),
            )


def _record(parts: Parts, ended: Container) -> None:
    parts.store.save_container(ended)
    parts.tell("exit", ended.sandbox, ended.id, ended.exit_code)


def _oom_message(container: Container) -> str:
    limit = container.config.resources.memory
    return f"killed for want of memory: its limit is {limit} bytes" if limit else "killed for want of memory"
