"""How a container that a command has created is started by another."""

from __future__ import annotations

from kestrel.base.errors import FailedPrecondition, KestrelError
from kestrel.runtime import bundles, hooks, state
from kestrel.runtime.bundles import Record
from kestrel.runtime.channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def start(root: str, record: Record) -> None:
    """Let the program of a container run; returns when it does. Raises what kept it from running."""
    place = bundles.directory(root, record.id)
    state.require("start", bundles.status(root, record), record.id)
    connection = bundles.open_gate(place)
    if connection is None:
        raise FailedPrecondition(f"cannot start an already running container: {record.id}")
    channel = Channel(connection)
    spec = bundles.load_config(root, record.id)
    try:
        channel.offer({"go": True})
        heard = channel.receive()
        if heard is not None and "listener" in heard[0]:
            introduce(spec, record.pid, heard[0], record.describe(state.CREATED))
            channel.offer({"go": True})
            heard = channel.receive()
    finally:
        channel.close()
    if heard is not None:
        from kestrel.runtime.messages import error_from_json

        raise error_from_json(heard[0].get("error") or {})
    found = hooks.parse(spec)
    bundles.enter(record)
    try:
        hooks.run("poststart", found.get("poststart", ()), record.describe(state.RUNNING))
    except KestrelError:
        # runtime-spec 1.3, step 10: the container is stopped and destroyed, and the lifecycle goes on at poststop.
        from kestrel.runtime import ending

        ending.delete(root, record, force=True)
        raise


def introduce(spec: Mapping[str, Any], pid: int, message: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Let the seccomp agent know of a process that has just installed its filter."""
    from kestrel.runtime import agents

    agents.introduce(spec["linux"]["seccomp"], pid, message["listener"], told)
