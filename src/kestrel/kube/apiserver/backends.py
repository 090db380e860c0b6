"""What the API server needs of the node: logs and live streams of containers.

The API server knows objects; only the kubelet knows processes. Before it calls one of these methods the API server
has read the Pod, picked the container and checked that the caller may do this. An implementation raises errors of
`kestrel.base.errors` *before* it returns (a waiting container is InvalidArgument, a vanished pod NotFound, a node
without the pod Unavailable); their messages reach kubectl word for word. After it has returned, a stream just ends.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

JSONObject = dict[str, Any]

STDOUT = 1
STDERR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Which part of a container's log: the query of `pods/log`.

    None means not asked for. `since_seconds` and `since_time` exclude each other. `limit_bytes` counts bytes after
    timestamps were added; the API server enforces it too. `stream` is `All`, `Stdout` or `Stderr`.
    """

    container: str
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since_seconds: int | None = None
    since_time: datetime | None = None
    limit_bytes: int | None = None
    stream: str = "All"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """An exec or attach: `command` is empty for attach. With `tty` there is no separate stderr."""

    container: str
    command: tuple[str, ...] = ()
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class Session(Protocol):
    """A running exec, or an attachment to a running container; whoever opened it closes it."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as (STDOUT or STDERR, bytes), or None when all output has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand bytes to standard input; waits while the process does not read. Ignored once the process has gone."""
        ...

    async def close_stdin(self) -> None:
        """Tell the process that no more input comes; output goes on."""
        ...

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal in characters; ignored without one."""
        ...

    async def wait(self) -> int:
        """Return the exit code of an exec, 128+n for a signal; of an attach the container's, or 0 when detached."""
        ...

    async def close(self) -> None:
        """Let go: an exec whose client went away is killed, an attach only detaches. May be called twice."""
        ...


class NodeBackend(Protocol):
    """Containers of pods on this node; `pod` is the whole object as the API server has it."""

    async def logs(self, pod: JSONObject, options: LogOptions) -> AsyncIterator[bytes]:
        """Return chunks of log text as the container wrote it (line starts stamped if asked for).

        With `follow` the iterator ends when the container has ended. It is closed with `aclose()` if it has one.
        """
        ...

    async def exec(self, pod: JSONObject, options: StreamOptions) -> Session:
        """Start a process in a running container."""
        ...

    async def attach(self, pod: JSONObject, options: StreamOptions) -> Session:
        """Connect to the container's own process."""
        ...

    async def port_forward(self, pod: JSONObject, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection to a port of the pod, made inside its network namespace to the loopback address."""
        ...
