"""OCI hooks: programs of the host at six moments of a container's life (config.md, "POSIX-platform Hooks").

    prestart, createRuntime   after everything is mounted, in the runtime's namespaces
    createContainer           then, the program found by the runtime's paths but run in the container's namespaces
    startContainer            after `start`, in the container's root, right before its program
    poststart                 after that has begun;    poststop   after the container is deleted

They run in the order listed and one after the other, with the container's state as JSON on standard input and no
environment but their own: what the image or the caller has in its environment never reaches them (CVE-2025-23266),
but for a startContainer hook without one, which is a program of the image and has the environment of the process.
A hook that fails ends the container, except after its end: a failed poststop is only reported.

Init runs some of them, so nothing here imports or looks anything up when it is called.
"""

from __future__ import annotations

import os
import time

from kestrel.base import plainjson
from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.base.values import dataclass
from kestrel.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Hooks = Mapping[str, tuple["Hook", ...]]

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
OUTSIDE = ("prestart", "createRuntime")
SAID = 2048  # bytes of a failed hook's output that are reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program to run; `timeout` in seconds, 0 for none. Without `env` it is not said what its environment is."""

    path: str
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] | None = None
    timeout: int = 0


def parse(spec: Mapping[str, Any]) -> dict[str, tuple[Hook, ...]]:
    """Return the hooks of a spec by kind; a kind that is none is ignored (config.md, "Extensibility").

    Raises InvalidArgument naming the member that is wrong.
    """
    given = spec.get("hooks") or {}
    return {kind: tuple(_hook(kind, entry) for entry in given[kind]) for kind in KINDS if given.get(kind)}


def _hook(kind: str, entry: Mapping[str, Any]) -> Hook:
    path = entry.get("path") or ""
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidArgument(f"hooks.{kind}: path {path!r} is not absolute")
    timeout = entry.get("timeout")
    if timeout is not None and (type(timeout) is not int or timeout <= 0):
        raise InvalidArgument(f"hooks.{kind}: the timeout of {path} must be greater than zero")
    env = [word.partition("=") for word in entry.get("env") or ()]
    if not all(name and equals for name, equals, _ in env):
        raise InvalidArgument(f"hooks.{kind}: the environment of {path} is not of the form NAME=VALUE")
    return Hook(
        path=path,
        args=tuple(entry.get("args") or (path,)),
        env=tuple((name, value) for name, _, value in env) if "env" in entry else None,
        timeout=timeout or 0,
    )


def run(
    kind: str, entries: Sequence[Hook], state: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> None:
    """Run hooks one after the other. Raises FailedPrecondition for the first that fails; the rest is not run."""
    for number, hook in enumerate(entries):
        problem = run_one(hook, state, environment)
        if problem:
            raise FailedPrecondition(f"error running {kind} hook #{number}: {hook.path}: {problem}", hook=kind)


def run_one(hook: Hook, state: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> str:
    """Run a hook, in `environment` if it has none of its own; return what went wrong, empty when nothing did."""
    env = dict(hook.env) if hook.env is not None else dict(environment or {})
    stdin, output = os.memfd_create("state", os.MFD_CLOEXEC), os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        os.write(stdin, plainjson.dumps(state).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in ((stdin, 0), (output, 1), (output, 2))]
        try:
            pid = os.posix_spawn(
                hook.path, hook.args, env, file_actions=actions, setsigmask=(), setsigdef=[signals.SIGPIPE],
                setpgroup=0,
            )  # fmt: skip
        except OSError as error:
            return os.strerror(error.errno or 0).lower()
        try:
            return _ended(pid, hook.timeout, output)
        except KeyboardInterrupt:
            os.killpg(pid, signals.SIGKILL)
            os.waitpid(pid, 0)
            raise
    finally:
        os.close(stdin)
        os.close(output)


def _ended(pid: int, timeout: int, output: int) -> str:
    """Wait for a hook. Without pidfd: a seccomp profile that is in force already may not know such a new call."""
    due = time.monotonic() + timeout
    pause = 0.0005
    while timeout:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > due:
            os.killpg(pid, signals.SIGKILL)  # with what it has started
            os.waitpid(pid, 0)
            return f"it did not end within {timeout} seconds"
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    else:
        _, status = os.waitpid(pid, 0)
    if status == 0:
        return ""
    how = (
        f"killed by signal: {(signals.strsignal(os.WTERMSIG(status)) or '').lower()}"
        if os.WIFSIGNALED(status)
        else f"exit status {os.WEXITSTATUS(status)}"
    )
    said = os.pread(output, SAID, max(0, os.fstat(output).st_size - SAID)).decode("utf-8", "replace").strip()
    return f"{how}, it said: {said}" if said else how


def inside(state: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Return a state as a hook in the container is told it: with the PID of its namespace."""
    return {**state, "status": status, "pid": os.getpid()}


def at_start(hooks: Hooks, state: Mapping[str, Any]) -> Callable[[Mapping[str, str]], None] | None:
    """Return what runs the startContainer hooks, given the process's environment; None when there are none."""
    entries = hooks.get("startContainer")
    if not entries:
        return None
    return lambda env: run("startContainer", entries, inside(state, "created"), env)
