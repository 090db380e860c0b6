"""The states a container goes through, what may be done in each, and how its end is kept.

    creating ──▶ created ──start──▶ running ──▶ stopped ──delete──▶ (gone)
                    └────────────kill───────────▲
                                  running ◀─▶ paused

These are the runtime-spec's words (runtime.md, "State"). An end is written to a file before anybody is told: a daemon
that was away reads it when it comes back, whether the shim still lives or not. One file per container,
`DIRECTORY/exits/ID`, written whole (a temporary name, fsync, rename, fsync of the directory), removed with the
container.
"""

import json
import os

from kestrel.base import files
from kestrel.base.errors import FailedPrecondition
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
    "kill": "container not running",
    "exec": "cannot exec in a container that is not running",
    "start": "cannot start a container that is not in the created state",
    "delete": "cannot delete a container that is running",
}


def require(operation: str, status: str, container_id: str) -> None:
    """Raise FailedPrecondition unless the operation may be done in that state."""
    if status in ALLOWED[operation]:
        return
    sentence = _SENTENCES.get(operation, f"cannot {operation} a container that is {status}")
    raise FailedPrecondition(f"{sentence}: {container_id} is {status}", status=status)


EXITS = "exits"


def write_exit(directory: str, exited: Exited) -> None:
    """Record an end; on disk when this returns."""
    folder = f"{directory}/{EXITS}"
    os.makedirs(folder, 0o700, exist_ok=True)
    body = {"exit_code": exited.exit_code, "oom": exited.oom, "time": exited.time}
    files.replace(f"{folder}/{exited.container_id}", json.dumps(body).encode())


def read_exit(directory: "str | os.PathLike[str]", container_id: str) -> "Exited | None":
    """Return how a container ended, or None when it is not known to have."""
    try:
        with open(f"{os.fspath(directory)}/{EXITS}/{container_id}", encoding="utf-8") as file:
            body = json.load(file)
    except FileNotFoundError:
        return None
    return Exited(container_id=container_id, **body)


def read_exits(directory: "str | os.PathLike[str]") -> list[Exited]:
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
