"""Hooks as operations of a plan: those that run before the container's root is entered."""

from __future__ import annotations

import os

from kestrel.base.values import dataclass
from kestrel.runtime import hooks
from kestrel.runtime.hooks import Hook
from kestrel.runtime.place import Operation, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


@dataclass(frozen=True, slots=True)
class HooksOutside(Operation):
    """Let the process outside run its hooks (prestart, createRuntime) now, and wait until it has."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        """Say it."""
        return f"run hooks outside: {', '.join(self.paths)}"

    def execute(self, place: Place) -> None:
        """Say that it is time; an answer means success, an end that the creator has given up."""
        assert place.channel is not None
        place.channel.send({"hooks": True})
        if place.channel.receive() is None:
            os._exit(1)


@dataclass(frozen=True, slots=True)
class HooksInside(Operation):
    """Run createContainer hooks: the namespaces are the container's, the root is still the host's."""

    hooks: tuple[Hook, ...]
    state: Mapping[str, Any]

    def describe(self) -> str:
        """Say it."""
        return f"run createContainer hooks: {', '.join(hook.path for hook in self.hooks)}"

    def execute(self, place: Place) -> None:  # noqa: ARG002 - the same for every operation
        """Run them."""
        hooks.run("createContainer", self.hooks, hooks.inside(self.state, "creating"))


def operations(found: hooks.Hooks, state: Mapping[str, Any]) -> list[Operation]:
    """Return the steps before the root is entered."""
    steps: list[Operation] = []
    paths = tuple(hook.path for kind in hooks.OUTSIDE for hook in found.get(kind, ()))
    if paths:
        steps.append(HooksOutside(paths))
    if found.get("createContainer"):
        steps.append(HooksInside(found["createContainer"], state))
    return steps
