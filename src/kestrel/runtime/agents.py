"""Seccomp agents: processes of the host that answer system calls which a profile leaves to them (SCMP_ACT_NOTIFY).

Whoever makes or starts a container, or a process in it, is told by init which of its descriptors is the listener, takes
a copy, and hands that to the agent at `linux.seccomp.listenerPath`, with the container's state (config-linux.md, "The
Container Process State").
"""

from __future__ import annotations

import os

from kestrel.base import plainjson
from kestrel.base.errors import InvalidArgument
from kestrel.linux import sockets, syscalls
from kestrel.runtime import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NAME = "seccompFd"


def introduce(profile: Mapping[str, Any], pid: int, number: int, state: Mapping[str, Any]) -> None:
    """Hand the descriptor `number` of the process `pid` to the agent of a profile."""
    path = profile["listenerPath"]
    told = {
        "ociVersion": state["ociVersion"],
        "fds": [NAME],
        "pid": pid,
        "metadata": profile.get("listenerMetadata") or "",
        "state": state,
    }
    pidfd = os.pidfd_open(pid)
    try:
        listener = syscalls.pidfd_getfd(pidfd, number)
    finally:
        os.close(pidfd)
    try:
        with sockets.Socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as agent:
            agent.connect(path)
            channel.send_some(agent, plainjson.dumps(told).encode(), [listener])
    except OSError as error:
        raise InvalidArgument(
            f"failed to connect with seccomp agent {path}: {error.strerror}", hint="is it running?"
        ) from error
    finally:
        os.close(listener)
