"""A container's control group, from its spec: made, limited, changed, as the command does it."""

from __future__ import annotations

import time

from kestrel.base.errors import FailedPrecondition, InvalidArgument, Unavailable
from kestrel.linux import cgroups
from kestrel.linux.cgroups import Group, Hierarchy
from kestrel.runtime import bundles, resources
from kestrel.runtime.bundles import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

PATIENCE = 10.0  # seconds for killed processes to go


def make(hierarchy: Hierarchy, path: str, linux: Mapping[str, Any]) -> Group:
    """Make the group at `path` with the limits and device rules of a spec's `linux`.

    It is in every hierarchy, so that tools find the container by whichever they look at. Raises FailedPrecondition for
    a group that others use, whose limits would become theirs, and InvalidArgument when the kernel refuses a limit; the
    group is then removed again.
    """
    wanted = linux.get("resources") or {}
    limits = resources.limits(wanted)
    rules = resources.device_rules(wanted)
    group = hierarchy.group(path)
    try:
        group = hierarchy.create(path, limits, everywhere=True)
        group.limit(limits)
        if rules is not None and "devices" in hierarchy.controllers:
            group.devices(rules)
    except OSError as error:
        _drop(group)
        raise InvalidArgument(f"{error.strerror}: {error.filename}", hint="the kernel refused a limit") from error
    return group


def require_unused(hierarchy: Hierarchy, path: str) -> None:
    """Raise FailedPrecondition if somebody is in the group at `path`, or would be stopped there."""
    others = hierarchy.group(path).pids()
    if others:
        raise FailedPrecondition(
            f"container's cgroup is not empty: {len(others)} process(es) found in {path}",
            hint="linux.cgroupsPath has to be the container's own",
        )
    if bundles.frozen(path):
        raise FailedPrecondition(f"container's cgroup unexpectedly frozen: {path}", hint="thaw it or choose another")


def _drop(group: Group) -> None:
    try:
        group.remove()
    except OSError:
        pass  # it was there before, and in use


def change(group: Group, wanted: Mapping[str, Any]) -> None:
    """Change limits of a group in use; what is not named stays. Raises InvalidArgument."""
    limits = resources.limits(wanted)
    if (wanted.get("memory") or {}).get("checkBeforeUpdate"):
        used = group.stats().memory or 0
        if limits.memory is not None and 0 <= limits.memory < used:
            raise InvalidArgument(f"the memory limit {limits.memory} is below the {used} bytes in use")
    try:
        group.limit(limits)
    except OSError as error:
        raise InvalidArgument(f"{error.strerror}: {error.filename}", hint="the kernel refused a limit") from error


def hierarchy() -> Hierarchy | None:
    """Return the control groups of this machine, None where there are none."""
    try:
        return cgroups.detect()
    except FileNotFoundError:
        return None


def group_of(record: Record) -> Group | None:
    """Return a container's control group."""
    found = hierarchy() if record.cgroup else None
    return found.group(record.cgroup) if found is not None else None


def processes(record: Record) -> Sequence[int]:
    """Return the processes of a container."""
    group = group_of(record)
    return group.pids() if group is not None else [record.pid]


def empty(group: Group) -> None:
    """Kill what is in a group, and return when all is gone. Raises Unavailable."""
    due = time.monotonic() + PATIENCE
    while not group.kill():
        if time.monotonic() > due:
            raise Unavailable(f"processes of control group {group.path} do not die: {group.pids()}")
        time.sleep(0.001)


def remove(group: Group) -> None:
    """Remove a group, as soon as the kernel has let go of its last process."""
    due = time.monotonic() + PATIENCE
    while True:
        try:
            return group.remove()
        except OSError:
            if time.monotonic() > due:
                raise
            time.sleep(0.001)
