"""What operations are, and the place they are carried out in.

An operation has two abilities: `describe()` says in plain words what it will do (for `kestrel explain` and for
errors), `execute(place)` does it, inside the container's new mount namespace and before the root is entered.
"""

import os

from kestrel.linux import mounts
from kestrel.runtime.channel import Channel


class Cover:
    """A detached mount to put in many places: itself in the first one, copies of it in all others.

    In this order, since a mount that is in no namespace cannot be copied before Linux 6.15.
    """

    def __init__(self, mount: int) -> None:
        self.mount = mount
        self._placed = False

    def put(self, target: int, name: str) -> None:
        """Cover the file or directory behind the descriptor `target`; `name` is for the error's text."""
        if not self._placed:
            mounts.attach(self.mount, target, name=name)
            self._placed = True
            return
        with mounts.opened(mounts.clone("", directory=self.mount, recursive=False)) as copy:
            mounts.attach(copy, target, name=name)


class Place:
    """Where a plan is being carried out: descriptors that operations leave for each other."""

    def __init__(self, channel: "Channel | None" = None) -> None:
        self.channel = channel  # to the process that makes the container
        self.user_namespace = -1  # the container's, which is entered last
        self.root = -1
        self.sources: dict[int, int] = {}  # index of a bind mount in the plan -> its source, a detached copy
        self.null: Cover | None = None  # the host's /dev/null, for masked files
        self.empty: Cover | None = None  # one read-only, empty tmpfs for every masked directory
        self.console = -1  # the master of the container's terminal
        self.terminal = -1  # its other end

    def put(self, mount: int, target: int, destination: str) -> None:
        """Put a mount on `target`, the container's `destination`; what is put on its root is its root from then on."""
        mounts.attach(mount, target, name=destination)
        if destination == "/":
            os.close(self.root)
            self.root = os.dup(mount)

    def close(self) -> None:
        """Let go of what was only needed for the mounts: whoever waits to be started holds nothing of the host."""
        covers = [cover.mount for cover in (self.null, self.empty) if cover is not None]
        for fd in {self.root, *self.sources.values(), *covers} - {-1}:
            os.close(fd)


class Operation:
    """One step. Subclasses are frozen dataclasses."""

    __slots__ = ()

    def describe(self) -> str:
        """Say what this does, in a line."""
        raise NotImplementedError

    def execute(self, place: Place) -> None:
        """Do it. Raises OSError or KestrelError."""
        raise NotImplementedError
