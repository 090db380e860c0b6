"""Stage 1, inside: the child carries out its plan, gives up its rights and becomes the user's process.

This code runs in a fork of the shim, so everything it needs is in memory already. Once the container's root is
entered it imports nothing, looks no name up and executes nothing but the user's program: `seal` takes away the means
(CVE-2019-14271, CVE-2026-41567: code from the container run by the runtime). The process is not dumpable, which it
inherits from the zygote, so that nothing in a shared PID namespace can look into it (CVE-2016-9962).

The conversation with the shim, over a channel that closes at exec:

    init → shim   {"hooks": true}                            if there are hooks that run outside, before the pivot
    shim → init   {"go": true}                               when they have
    init → shim   {"ready": true, "warnings": [...]} with the terminal's master, if there is one
    shim → init   {"go": true}                               closed instead: the shim is gone, so end
    init → shim   {"listener": N}                            if its filter has an agent; answered by {"go": true}
    init → shim   {"error": {...}}                           then exit; an end without it means that exec succeeded

Without a shim (`kestrel-runtime create`) the creator answers "ready" with {"kept": true} and ends. Then "go" comes over
the `gate`: a listening socket that whoever starts the container connects to, once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from kestrel.base.errors import InvalidArgument, KestrelError, PermissionDenied
from kestrel.base.values import dataclass, replace
from kestrel.linux import abi, signals, sockets, syscalls
from kestrel.linux.mounts import opened
from kestrel.runtime import devices, operations, process, program, scheduling
from kestrel.runtime.channel import Channel, encode
from kestrel.runtime.messages import error_to_json
from kestrel.runtime.place import Place
from kestrel.runtime.plan import KINDS, Plan
from kestrel.runtime.process import Process
from kestrel.runtime.users import Ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

FAILED = 126
CHANGED = (signals.SIGCHLD, signals.SIGINT, signals.SIGPIPE, signals.SIGXFSZ, signals.SIGTERM, signals.SIGHUP)
"""Signals that have another action than the default, here or in whoever started us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stdio:
    """Descriptors that become 0, 1 and 2; with a terminal they are not used."""

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """What else a process needs that outlives its creator (`kestrel-runtime`).

    `gate` is where a container's first process waits to be started; a joining one starts at once. `preserved`
    descriptors from 3 on are the program's. Without `keyring` it keeps its creator's session keyring.
    """

    gate: sockets.Socket | None = None
    keyring: bool = True
    preserved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What a child is given besides its plan: its end of the channel, its output, and how to join its cgroups.

    Without `joiners` it is told of its groups on the channel. With a `user_namespace` (a descriptor, or a pidfd of a
    process in it) `ids` says what it means; with `owned` (CLONE_NEW* bits) it makes one, and those that belong to it.
    It dies with the process that made it unless it lives `apart`.
    """

    channel: Channel
    stdio: Stdio
    joiners: Sequence[int] | None = None
    ids: Ids | None = None
    user_namespace: int = -1
    owned: int = 0
    apart: Apart | None = None


def reset_signals() -> None:
    """Undo what Python did to signals: an ignored SIGPIPE would be inherited through execve(2)."""
    signals.set_wakeup_fd(-1)
    syscalls.default_signals(CHANGED)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())


def guarded(channel: Channel, body: Callable[[], NoReturn]) -> NoReturn:
    """Run the child's body; whatever it raises is reported to the parent, and the process ends."""
    try:
        body()
    except BaseException as error:  # noqa: BLE001 - nothing may return into the shim's code
        reported = translated(error)
        try:
            channel.send({"error": error_to_json(reported)})
        except OSError:
            pass  # the parent is gone; there is nobody left to tell
        code = reported.context.get("exit_code", FAILED) if isinstance(reported, KestrelError) else FAILED
        os._exit(code if isinstance(code, int) else FAILED)


def translated(error: BaseException) -> BaseException:
    """Return what the system said as an error of ours that says what was being done; others as they are."""
    if isinstance(error, MemoryError):
        return InvalidArgument("cannot allocate memory", hint="is one of process.rlimits too low, such as RLIMIT_AS?")
    if not isinstance(error, OSError) or isinstance(error, KestrelError):
        return error
    place = f": {error.filename}" if error.filename else ""
    kind = PermissionDenied if isinstance(error, PermissionError) else InvalidArgument
    return kind(f"{error.strerror}{place}".lower() if not error.filename else f"{error.strerror}{place}")


def join_cgroups(child: Child) -> None:
    """Move ourselves into our groups (version 1); what they are is heard on the channel if it was not known before."""
    joiners = child.joiners
    if joiners is None:
        heard = child.channel.receive()
        if heard is None:
            os._exit(FAILED)
        joiners = heard[1]
    for fd in joiners:
        os.write(fd, b"0")
        os.close(fd)


def run(make: Callable[[Channel], Plan], child: Child) -> NoReturn:
    """Be a container's first process. Never returns."""
    guarded(child.channel, lambda: _run(make, child))


def _run(make: Callable[[Channel], Plan], child: Child) -> NoReturn:
    if child.apart is None:
        syscalls.prctl(abi.PR_SET_PDEATHSIG, signals.SIGKILL)
    reset_signals()
    close_others(child)
    plan = make(child.channel)
    warnings = []
    if plan.process.oom_score_adj is not None:
        warnings.append(process.set_oom_score(plan.process.oom_score_adj))
    join_cgroups(child)
    scheduling.move_anywhere()
    if plan.new & abi.CLONE_NEWCGROUP:
        # Only now: its root is the group of the process at the time (`man 7 cgroup_namespaces`).
        syscalls.unshare(abi.CLONE_NEWCGROUP)
    for bit, path in plan.joined:
        _join(bit, path)
    if child.owned and child.ids is not None:
        child = replace(child, user_namespace=child.ids.make(enter=child.owned))
    os.setsid()
    if child.apart is None or child.apart.keyring:
        _own_keyring()
    place = Place(child.channel)
    place.user_namespace = child.user_namespace
    os.umask(0)
    for operation in plan.operations:
        operation.execute(place)
        if isinstance(operation, operations.EnterRoot):
            _taken = seal()
    place.close()
    masters = [place.console] if place.console >= 0 else []
    own_mounts = bool(plan.new & abi.CLONE_NEWNS)
    finish(plan.process, child, place.terminal, masters, warnings, plan.start_hooks, own_mounts=own_mounts)


def _join(bit: int, path: str) -> None:
    try:
        with opened(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            syscalls.setns(fd, bit)
    except OSError as error:
        kind = next(name for name, value in KINDS.items() if value == bit)
        reason = os.strerror(error.errno or 0).lower()
        hint = f"it is no {kind} namespace" if error.errno == errno.EINVAL else None
        raise InvalidArgument(f"the {kind} namespace {path} cannot be joined: {reason}", hint=hint) from None


def close_others(child: Child, *others: int) -> None:
    """Close every descriptor of the shim but those that are ours: nothing of the host's is open in here."""
    given = [*(child.joiners or ()), *_given(child.stdio)]
    given += [child.user_namespace] if child.user_namespace >= 0 else []
    if child.apart is not None:
        given += [child.apart.gate.fileno()] if child.apart.gate is not None else []
        given += range(3, 3 + child.apart.preserved)
    keep = sorted({0, 1, 2, child.channel.fileno(), *given, *others})
    for previous, following in zip(keep, [*keep[1:], 0xFFFFFFFF + 1], strict=True):
        if following - previous > 1:
            syscalls.close_range(previous + 1, following - 1)


def _given(stdio: Stdio) -> list[int]:
    return [fd for fd in (stdio.stdin, stdio.stdout, stdio.stderr) if fd >= 0]


def _own_keyring() -> None:
    """Without it the container would share the session keyring of whoever started the daemon (`man 7 keyrings`)."""
    try:
        syscalls.join_session_keyring("kestrel")
    except OSError:
        pass  # a kernel without keys, or a quota used up: then there is none to share either


def seal() -> tuple[object, ...]:
    """From here on files are the container's: take away what could load code from them.

    Returns what was taken away, to be kept: freeing it would write to hundreds of pages that are still shared.
    """
    taken = (sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache)
    sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache = [], [], [], {}
    return taken


def enter_joined(task: Process, child: Child, width: int, height: int, warning: str | None) -> NoReturn:
    """Be a further process of a container whose namespaces have been joined. Never returns."""
    terminal, masters = -1, []
    if task.terminal:
        with opened(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            master, terminal = devices.open_terminal(root, width, height)
        os.fchown(terminal, _owner(task, child)[0], -1)
        masters = [master]
    finish(task, child, terminal, masters, [warning])


def finish(
    task: Process,
    child: Child,
    terminal: int,
    descriptors: Sequence[int],
    warnings: Sequence[str | None],
    start_hooks: Callable[[Mapping[str, str]], None] | None = None,
    *,
    own_mounts: bool = False,
) -> NoReturn:
    """The part that a container's first process and one that joins have in common: confine, wait, execute."""
    apart = child.apart or Apart()
    _take_stdio(child.stdio, terminal, *_owner(task, child))
    _keep_only(apart.preserved)
    channel = child.channel
    limited = process.confine(
        task,
        lambda fd: _tell_listener(channel, fd),
        bound=child.apart is None,
        user_namespace=child.user_namespace,
        own_mounts=own_mounts,
    )
    if apart.gate is not None and task.rlimits:
        _require_descriptor(apart.gate)
    env = process.environment(task)
    path = program.find(task.args[0], env)
    told = [warning for warning in (*warnings, *limited, *task.warnings) if warning]
    child.channel.send({"ready": True, "warnings": told}, descriptors)
    for fd in descriptors:
        os.close(fd)
    starter = child.channel if apart.gate is None else _wait_at(apart.gate, child.channel)
    if starter.receive() is None:
        os._exit(FAILED)
    guarded(starter, lambda: _launch(task, path, env, apart.preserved, starter, start_hooks))


def _owner(task: Process, child: Child) -> tuple[int, int]:
    """Return the process's user and group as the host knows them."""
    ids = child.ids
    return (task.uid, task.gid) if ids is None else (ids.uid(task.uid), ids.gid(task.gid))


def _keep_only(preserved: int) -> None:
    """Nothing above standard error reaches the program, whoever opened it, unless it was asked for (CVE-2024-21626).

    Done before a filter is installed and again last of all, when a profile may refuse it.
    """
    try:
        syscalls.close_range(3 + preserved, flags=abi.CLOSE_RANGE_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise


def _wait_at(gate: sockets.Socket, creator: Channel) -> Channel:
    """Wait for the one who starts us; unless our creator says that it has kept our number, nobody will find us.

    The first process of a PID namespace ignores what it does not handle, so that until then the usual requests to end
    need a handler.
    """
    for number in (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM):
        signals.signal(number, _end)
    if creator.receive() is None:
        os._exit(FAILED)
    creator.close()
    connection, _ = gate.accept()
    gate.close()
    return Channel(connection)


def _require_descriptor(gate: sockets.Socket) -> None:
    """Say that there is none left for the one who starts us while there still is somebody to hear it."""
    try:
        os.close(os.dup(gate.fileno()))
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise InvalidArgument(
                "too many open files: RLIMIT_NOFILE leaves none for the start of the program",
                hint="raise it in process.rlimits",
            ) from None


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


def _launch(
    task: Process,
    path: str,
    env: dict[str, str],
    preserved: int,
    starter: Channel,
    start_hooks: Callable[[Mapping[str, str]], None] | None,
) -> NoReturn:
    _keep_only(preserved)
    # The filter goes in as late as it may, so that a profile need not allow what we do until here.
    process.install_late(task, lambda fd: _tell_listener(starter, fd))
    if start_hooks is not None:
        start_hooks(env)  # programs of the image, which are to be filtered as well
    try:
        os.execve(path, task.args, env)
    except OSError as error:
        raise program.explain(path, error) from None


def _tell_listener(channel: Channel, fd: int) -> None:
    """Say at which of our descriptors a seccomp agent is to listen, and wait until it has been taken.

    From here on until the agent has it, a system call that the profile leaves to the agent waits for ever. So it is
    told by write(2) alone, which no profile may leave to it (`seccomp.compile_profile`), and taken by pidfd_getfd(2).
    """
    os.write(channel.fileno(), encode({"listener": fd}))
    if channel.receive() is None:
        os._exit(FAILED)


def _give(fd: int, uid: int, gid: int) -> None:
    """Let the user own an output, unless it is a device that everybody shares."""
    try:
        if os.fstat(fd).st_rdev != os.makedev(1, 3):
            os.fchown(fd, uid, gid)
    except OSError:
        pass  # a descriptor of a kind that has no owner


def _take_stdio(stdio: Stdio, terminal: int, uid: int, gid: int) -> None:
    """Put the descriptors at 0, 1 and 2, and let the user own them, so that /dev/stdout can be opened by name."""
    if terminal >= 0:
        fcntl.ioctl(terminal, abi.TIOCSCTTY, 0)
    for number, fd in enumerate((stdio.stdin, stdio.stdout, stdio.stderr)):
        source = terminal if terminal >= 0 else fd
        os.dup2(source, number, inheritable=True)
        if uid and terminal < 0 and number:
            _give(number, uid, gid)
    for fd in {terminal, *_given(stdio)} - {-1, 0, 1, 2}:
        os.close(fd)
