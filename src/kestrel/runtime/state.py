"""The states a container goes through, what may be done in each, and how its end is kept.

    creating ──▶ created ──start──▶ running ──▶ stopped ──delete──▶ (gone)
                    └────────────kill───────────▲
                                  running ◀─▶ paused

These are the runtime-spec's words (runtime.md, "State"). An end is written to a file before anybody is told: a daemon
that was away reads it when it comes back, whether the shim still lives or not. One file per container,
`DIRECTORY/exits/ID`, written whole under a temporary name and then renamed, removed with the container. It is not
synced to disk, which would cost more than all else at the end of a container: what the kernel has taken survives the
death of any process, and no container survives that of the machine, after which none is believed to run.
"""

import os

from kestrel.base import plainjson
from kestrel.base.errors import FailedPrecondition

TYPE_CHECKING = False  # the states are for commands too, which load as little as they can
if TYPE_CHECKING:
    from kestrel.runtime.messages import Exited

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"

ALLOWED = {
    "start": (CREATED,),
    "kill": (CREATED, RUNNING, PAUSED),
    "exec": (RUNNING,),
    "pause": (RUNNING,),
    "resume": (PAUSED,),
    "update": (CREATED, RUNNING, PAUSED),
    "resize": (CREATED, RUNNING, PAUSED),
    "attach": (CREATED, RUNNING, PAUSED),
    "delete": (CREATED, STOPPED),
}

# Clients of runc match on these sentences (containerd: process/utils.go).
_SENTENCES = {
    ("exec", STOPPED): "cannot exec in a stopped container",
    ("start", RUNNING): "cannot start an already running container",
    ("start", STOPPED): "cannot start a container that has stopped",
    ("start", PAUSED): "cannot start a container in the paused state",
}


def require(operation: str, status: str, container_id: str) -> None:
    """Raise FailedPrecondition unless the operation may be done in that state."""
    if status in ALLOWED[operation]:
        return
    sentence = _SENTENCES.get((operation, status), f"cannot {operation} a container that is {status}")
    if operation == "kill" or (operation, status) == ("exec", CREATED):
        sentence = "container not running"
    raise FailedPrecondition(f"{sentence}: {container_id} is {status}", status=status)


EXITS = "exits"


def write_exit(directory: str, exited: "Exited") -> None:
    """Record an end; whoever looks from now on finds it."""

    folder = f"{directory}/{EXITS}"
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    body = {"exit_code": exited.exit_code, "oom": exited.oom, "time": exited.time}
    path, temporary = f"{folder}/{exited.container_id}", f"{folder}/.{exited.container_id}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, plainjson.dumps(body).encode())
    finally:
        os.close(fd)
    os.replace(temporary, path)


def read_exit(directory: "str | os.PathLike[str]", container_id: str) -> "Exited | None":
    """Return how a container ended, or None when it is not known to have."""

    from kestrel.runtime.messages import Exited

    try:
        with open(f"{os.fspath(directory)}/{EXITS}/{container_id}", encoding="utf-8") as file:
            body = plainjson.loads(file.read())
    except FileNotFoundError:
        return None
    return Exited(container_id=container_id, **body)


def read_exits(directory: "str | os.PathLike[str]") -> "list[Exited]":
    """Return the ends of all containers of a sandbox."""
    try:
        names = [name for name in os.listdir(f"{os.fspath(directory)}/{EXITS}") if not name.startswith(".")]
    except FileNotFoundError:
        return []
    found = (read_exit(directory, name) for name in sorted(names))
    return [exited for exited in found if exited is not None]


def forget_exit(directory: str, container_id: str) -> None:
    """Remove a container's exit file, if there is one."""
    try:
        os.unlink(f"{directory}/{EXITS}/{container_id}")
    except FileNotFoundError:
        pass


def exit_code(status: int) -> int:
    """Return a wait status as a shell has it: 128 + signal for a process that a signal ended."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)
