"""How a container that commands keep ends: signals, and the removal of all that is left of it."""

from __future__ import annotations

import os
import select

from kestrel.base.errors import FailedPrecondition, KestrelError
from kestrel.linux import signals
from kestrel.linux.cgroups import Group
from kestrel.runtime import bundles, groups, hooks, state
from kestrel.runtime.bundles import Record


def kill(root: str, record: Record, number: int, *, everyone: bool = False) -> None:
    """Send a signal to a container's first process, or to all its processes."""
    now = bundles.status(root, record)
    group = groups.group_of(record)
    # What shares the host's PID namespace does not end with its first process.
    scattered = number == signals.SIGKILL and not record.own_pids
    if group is not None and (everyone or (scattered and now == state.STOPPED and group.pids())):
        _signal_all(group, number)
        return
    if now not in state.ALLOWED["kill"]:
        raise FailedPrecondition("container not running", status=now)
    try:
        os.kill(record.pid, number)
    except ProcessLookupError:
        raise FailedPrecondition("process already finished") from None
    if number == signals.SIGKILL and group is not None:
        if scattered:
            _signal_all(group, number)
        if now == state.PAUSED:
            group.freeze(False)


def _signal_all(group: Group, number: int) -> None:
    for pid in group.pids():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def delete(root: str, record: Record, *, force: bool = False) -> list[str]:
    """Remove a container that has ended or never begun, with `force` any; return warnings."""
    now = bundles.status(root, record)
    if now not in state.ALLOWED["delete"] and not force:
        raise FailedPrecondition(f"cannot delete container {record.id} that is not stopped: {now}", status=now)
    if now != state.STOPPED and record.pid:
        _end(record)
    group = groups.group_of(record)
    if group is not None:
        groups.empty(group)
        groups.remove(group)
    found: hooks.Hooks = {}
    try:
        found = hooks.parse(bundles.load_config(root, record.id))
    except (KestrelError, OSError):
        pass  # it was deleted half already
    bundles.forget(root, record.id)
    told = record.describe(state.STOPPED)
    bundles.enter(record)
    said = ((hook.path, hooks.run_one(hook, told)) for hook in found.get("poststop", ()))
    return [f"error running poststop hook {path}: {problem}" for path, problem in said if problem]


def _end(record: Record) -> None:
    """Kill the first process and wait until it has ended (somebody else reaps it)."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if bundles.start_time(record.pid) == record.started:
            signals.pidfd_send_signal(pidfd, signals.SIGKILL)
            group = groups.group_of(record)
            if group is not None and bundles.frozen(record.cgroup):
                group.freeze(False)
            select.select([pidfd], [], [], groups.PATIENCE)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
