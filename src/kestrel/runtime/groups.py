"""A container's control group, from its spec: made, limited, changed, as the command does it."""

from __future__ import annotations

from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.linux.cgroups import Group, Hierarchy
from kestrel.runtime import bundles, resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


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
    try:
        group.limit(limits)
    except OSError as error:
        raise InvalidArgument(f"{error.strerror}: {error.filename}", hint="the kernel refused a limit") from error
