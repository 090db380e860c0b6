"""What the builder needs of the world: something that runs a command in a root filesystem, and images by name.

The builder declares these Protocols; the composition root fulfils them with the engine and the image service. An
`Executor` promises that when `run` returns, or raises, or is cancelled, no process of the command is left and
nothing of it is mounted any more.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from kestrel.linux.rootfs import Rootfs

Output = Callable[[str, bytes], None]
"""Takes (`stdout` or `stderr`, bytes) as they come."""
NETWORKS = ("default", "bridge", "host", "none")
"""What a command's network may be; `default` is the bridge."""
HOSTNAME = "buildkitsandbox"
"""What a command's host is called where nobody says otherwise; BuildKit's name, which scripts have come to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """Something to mount for one command.

    `kind` is `bind` (`source`: a file or directory of the host, or with `rootfs` one of that root, without links in
    its path) or `tmpfs` (`size` in bytes, 0 for no limit). The target is a path inside the root; what is missing of it
    is created there, and removed again by the builder.
    """

    target: str
    kind: str = "bind"
    source: str = ""
    rootfs: Rootfs | None = None
    read_only: bool = True
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a command may use, 0 being no limit: memory in bytes, processors in thousandths of one.

    `shm_size` is the size of /dev/shm in bytes, 0 the usual one. `ulimits` are name (`nofile`), soft and hard limit of
    each process, -1 being none (`man 2 getrlimit`).
    """

    memory: int = 0
    cpu_millis: int = 0
    shm_size: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command to run in a snapshot.

    `id` is unique and short, fit for names of cgroups and sandboxes. `user` is docker's form (`name`, `uid`,
    `uid:gid`), looked up in the root's own /etc/passwd; empty means root. `network` is `default`, `none` or `host`.
    `users` are those who wrote in the snapshot before (`Ran.users`), None while nobody has.
    """

    id: str
    rootfs: Rootfs
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str = "/"
    user: str = ""
    network: str = "default"
    hostname: str = HOSTNAME
    hosts: tuple[tuple[str, str], ...] = ()
    mounts: tuple[RunMount, ...] = ()
    limits: Limits = Limits()
    users: range | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended (128 + signal when a signal ended it), and the host's numbers of the users it had.

    These are empty when they were the host's own. Else what was written in the snapshot belongs to them.
    """

    code: int
    users: range = range(0)


class Process(Protocol):
    """A command somebody talks to."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as (1 or 2, bytes), a terminal's as 1; None when all of it has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand bytes to its input."""
        ...

    async def close_stdin(self) -> None:
        """End its input."""
        ...

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters."""
        ...

    async def kill(self, signal_or_name: int | str = 9) -> None:
        """Send it a signal."""
        ...

    async def wait(self) -> int:
        """Return its exit code."""
        ...


class Executor(Protocol):
    """Runs commands in snapshots."""

    def enter(self, run: Run, *, tty: bool) -> AbstractAsyncContextManager[Process]:
        """Run with somebody at the other end; what still runs when the block ends is ended, as when `run` returns."""
        ...

    async def run(self, run: Run, output: Output) -> Ran:
        """Run to the end, in a working directory that is made when it is missing.

        Raises KestrelError when the command could not be started. When cancelled, kills the command, waits until it
        is gone, and raises CancelledError.
        """
        ...
