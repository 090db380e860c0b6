"""What operations are, and the place they are carried out in.

An operation has two abilities: `describe()` says in plain words what it will do (for `kestrel explain` and for
errors), `execute(place)` does it, inside the container's new mount namespace and before the root is entered.
"""

from kestrel.runtime.channel import Channel


class Place:
    """Where a plan is being carried out: descriptors that operations leave for each other."""

    def __init__(self, channel: "Channel | None" = None) -> None:
        self.channel = channel  # to the process that makes the container
        self.root = -1
        self.sources: dict[int, int] = {}  # index of a bind mount in the plan -> its source, a detached copy
        self.null = -1  # the host's /dev/null, for masks
        self.empty = -1  # one read-only, empty tmpfs, cloned for every masked directory
        self.console = -1  # the master of the container's terminal
        self.terminal = -1  # its other end


class Operation:
    """One step. Subclasses are frozen dataclasses."""

    __slots__ = ()

    def describe(self) -> str:
        """Say what this does, in a line."""
        raise NotImplementedError

    def execute(self, place: Place) -> None:
        """Do it. Raises OSError or KestrelError."""
        raise NotImplementedError
