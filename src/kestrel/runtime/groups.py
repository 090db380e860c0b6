"""A container's control group, from its spec: made, limited, changed. Shared by the shim and the command."""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument
from kestrel.linux.cgroups import Group, Hierarchy
from kestrel.runtime import resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def make(hierarchy: Hierarchy, path: str, linux: Mapping[str, Any]) -> Group:
    """Make the group at `path` with the limits and device rules of a spec's `linux`.

    Raises InvalidArgument when the kernel refuses a limit; the group is then removed again.
    """
    wanted = linux.get("resources") or {}
    limits = resources.limits(wanted)
    rules = resources.device_rules(wanted, linux.get("devices") or ())
    group = hierarchy.create(path, limits)
    try:
        group.limit(limits)
        if rules is not None and "devices" in hierarchy.controllers:
            group.devices(rules)
    except OSError as error:
        _drop(group)
        raise InvalidArgument(f"{error.strerror}: {error.filename}", hint="the kernel refused a limit") from error
    return group


def _drop(group: Group) -> None:
    try:
        group.remove()
    except OSError:
        pass  # it was there before, and in use


def change(hierarchy: Hierarchy, group: Group, wanted: Mapping[str, Any]) -> None:
    """Change limits of a group in use; what is not named stays. Raises InvalidArgument."""
    limits = resources.limits(wanted)
    try:
        # Version 1 makes the groups of optional controllers (cpuset) only when a limit asks for them.
        if set(hierarchy.hierarchies(limits)) - set(hierarchy.hierarchies()):
            hierarchy.create(group.path, limits)
            for pid in group.pids():
                group.attach(pid)
        group.limit(limits)
    except OSError as error:
        raise InvalidArgument(f"{error.strerror}: {error.filename}", hint="the kernel refused a limit") from error
