"""Stage 0: the half of making a container that stays outside, and the same for a process that joins one.

`create` clones the child straight into its new namespaces, and on cgroup v2 into its group; everything it needs is in
its memory, so the parent has nothing more to send than "go". `begin` is for a shim: the child reads its spec itself,
while the shim makes its groups; that is quicker, and what reading leaves behind goes with the child. What a
shim starts are its keeper's children (CLONE_PARENT, see `keeper.py`).

`join` makes a process in a container that runs: a first child lets go of every descriptor of the host, joins the
namespaces through the container's pidfd, and clones the real one with CLONE_PARENT, so that it is this process's
child too. Until then nothing in the container's PID namespace can see it, and after it there is nothing of the host's
to see (CVE-2016-9962).

Only for a process with one thread (research/runtime section 4, row 29).
"""

from __future__ import annotations

import errno
import os
import select

from kestrel.base.errors import InvalidArgument, Unimplemented
from kestrel.base.values import dataclass
from kestrel.linux import abi, signals, sockets, syscalls
from kestrel.linux.cgroups import Group
from kestrel.runtime import init, scheduling
from kestrel.runtime.channel import Channel, pair
from kestrel.runtime.init import Apart, Child, Stdio
from kestrel.runtime.plan import Plan
from kestrel.runtime.process import Process, set_oom_score
from kestrel.runtime.users import Ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

JOINED = (
    abi.CLONE_NEWNS | abi.CLONE_NEWPID | abi.CLONE_NEWNET | abi.CLONE_NEWIPC | abi.CLONE_NEWUTS | abi.CLONE_NEWCGROUP
)

OWNED = abi.CLONE_NEWNET | abi.CLONE_NEWIPC | abi.CLONE_NEWUTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A child that is getting ready: it will say so on the channel. The caller closes both descriptors."""

    pid: int
    pidfd: int
    channel: sockets.Socket


def create(
    plan: Plan, group: Group | None, stdio: Stdio, pid_namespace: int = -1, apart: Apart | None = None
) -> Started:
    """Start a container's first process; it stops before exec until it is told to go.

    `pid_namespace` is a descriptor of the PID namespace to be born in, when the plan does not make one and it is not
    our own. With `apart` it outlives this process.
    """
    joiners = group.joiners() if group is not None else []
    # Those that belong to a new user namespace are made with it, by the child.
    owned = plan.new & OWNED if plan.ids is not None and not plan.ids.path else 0
    namespace = plan.ids.make() if plan.ids is not None and not owned else -1

    def child(channel: Channel) -> Child:
        return Child(
            channel=channel,
            stdio=stdio,
            joiners=joiners,
            ids=plan.ids,
            user_namespace=namespace,
            owned=owned,
            apart=apart,
        )

    def start(new: int) -> Started:
        return _start(new & ~owned, lambda _channel: plan, group, child, pid_namespace)

    try:
        return _at_another_time(plan, start) if plan.time_offsets else start(plan.new)
    finally:
        for fd in {*joiners, namespace} - {-1}:
            os.close(fd)


def begin(
    new: int,
    make: Callable[[Channel], Plan],
    group: Group | None,
    stdio: Stdio,
    pid_namespace: int = -1,
    ids: Ids | None = None,
    user_namespace: int = -1,
) -> Started:
    """Start a container's first process, which makes its plan itself; `tell_groups` must follow.

    `new` are the CLONE_NEW* bits of its plan. `make` is called in the child, with its end of the channel. `group` is
    where it is to be born, if it exists already. `ids` and `user_namespace` belong together.
    """

    def checked(channel: Channel) -> Plan:
        plan = make(channel)
        if plan.new != new or plan.ids != ids:
            raise InvalidArgument("the request and linux.namespaces do not name the same namespaces")
        if plan.time_offsets:
            raise Unimplemented("linux.timeOffsets are not set here", hint="use `kestrel-runtime` for such a container")
        return plan

    def child(channel: Channel) -> Child:
        return Child(channel=channel, stdio=stdio, ids=ids, user_namespace=user_namespace)

    return _start(new | abi.CLONE_PARENT, checked, group, child, pid_namespace)


def tell_groups(channel: Channel, group: Group | None) -> None:
    """Let the process that `begin` has started join its groups, and go on. If it has gone, its end tells."""
    joiners = group.joiners() if group is not None else []
    try:
        channel.offer({"joiners": len(joiners)}, joiners)
    finally:
        for fd in joiners:
            os.close(fd)


def _start(
    new: int,
    make: Callable[[Channel], Plan],
    group: Group | None,
    child: Callable[[Channel], Child],
    pid_namespace: int,
) -> Started:
    ours, theirs = pair()
    try:
        # The cgroup namespace is made by the child, once it is in its group.
        pid, pidfd = _clone(new & ~abi.CLONE_NEWCGROUP, group, pid_namespace)
        if pid == 0:
            init.run(make, child(Channel(theirs)))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Started(pid=pid, pidfd=pidfd, channel=ours)


def _at_another_time(plan: Plan, start: Callable[[int], Started]) -> Started:
    """Start a process in a new time namespace with offsets, which can be written only until somebody is in it.

    So clone3(2) does not make it: it is made for our children, and afterwards they get ours again (`man 7
    time_namespaces`).
    """
    syscalls.unshare(abi.CLONE_NEWTIME)
    try:
        _set_offsets("".join(f"{clock} {whole} {rest}\n" for clock, whole, rest in plan.time_offsets))
        return start(plan.new & ~abi.CLONE_NEWTIME)
    finally:
        with open("/proc/self/ns/time", "rb", buffering=0) as own:
            syscalls.setns(own.fileno(), abi.CLONE_NEWTIME)


def _set_offsets(offsets: str) -> None:
    try:
        with open("/proc/self/timens_offsets", "wb", buffering=0) as file:
            file.write(offsets.encode())
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        shown = ", ".join(offsets.splitlines())
        raise InvalidArgument(f"linux.timeOffsets: the kernel refuses {shown}: {reason}") from None


def _clone(flags: int, group: Group | None, pid_namespace: int) -> tuple[int, int]:
    """clone3(2), into the group where the kernel can do that, and into another PID namespace when asked."""
    directory = group.directory() if group is not None else -1
    if pid_namespace >= 0:
        _enter_pid_namespace(pid_namespace)
    try:
        return syscalls.clone3(flags, exit_signal=0 if flags & abi.CLONE_PARENT else signals.SIGCHLD, cgroup=directory)
    finally:
        if directory >= 0:
            os.close(directory)
        if pid_namespace >= 0:
            _back_to_own_pid_namespace()


def _enter_pid_namespace(fd: int) -> None:
    """setns(2), which for this type is about children only."""
    try:
        syscalls.setns(fd, abi.CLONE_NEWPID)
    except OSError as error:
        name, reason = os.readlink(f"/proc/self/fd/{fd}"), os.strerror(error.errno or 0).lower()
        hint = "it is no pid namespace" if error.errno == errno.EINVAL else None
        raise InvalidArgument(f"the pid namespace {name} cannot be joined: {reason}", hint=hint) from None


def _back_to_own_pid_namespace() -> None:
    with open("/proc/self/ns/pid", "rb", buffering=0) as own:
        syscalls.setns(own.fileno(), abi.CLONE_NEWPID)


def join(
    target: int,
    make: Callable[[], Process],
    group: Group | None,
    stdio: Stdio,
    size: tuple[int, int] = (0, 0),
    apart: Apart | None = None,
    ids: Ids | None = None,
) -> Started:
    """Start another process in the container whose first process is behind the pidfd `target`.

    What it is to be is made in the child, by `make`, while it still is on the host. `ids` are those of a container
    that has a user namespace of its own.

    The answer's `pid` is the go-between's, which ends at once; the real process's number comes as the first message
    on the channel, `{"pid": N}`.
    """
    ours, theirs = pair()
    joiners = group.joiners() if group is not None else []
    try:
        pid, pidfd = _clone(0 if apart is not None else abi.CLONE_PARENT, group, -1)
        if pid == 0:
            namespace = target if ids is not None else -1
            child = Child(
                channel=Channel(theirs), stdio=stdio, joiners=joiners, ids=ids, user_namespace=namespace, apart=apart
            )
            init.guarded(child.channel, lambda: _go_between(target, make, child, size))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in joiners:
            os.close(fd)
    return Started(pid=pid, pidfd=pidfd, channel=ours)


def _go_between(target: int, make: Callable[[], Process], child: Child, size: tuple[int, int]) -> NoReturn:
    init.reset_signals()
    process = make()
    init.close_others(child, target)
    warning = None
    if process.oom_score_adj is not None:
        warning = set_oom_score(process.oom_score_adj)
    scheduling.move(process.cpus[0])
    init.join_cgroups(child)
    if any(process.cpus):
        scheduling.move(process.cpus[1])
    else:
        scheduling.move_anywhere()
    syscalls.setns(target, JOINED | (abi.CLONE_NEWTIME if os.path.exists("/proc/self/ns/time") else 0))
    if child.user_namespace != target:
        os.close(target)
    pid, pidfd = syscalls.clone3(abi.CLONE_PARENT, exit_signal=0)
    if pid:
        try:
            child.channel.send({"pid": pid}, [pidfd])
        except BaseException:
            signals.pidfd_send_signal(pidfd, signals.SIGKILL)  # nobody else knows of it
            select.select([pidfd], [], [])
            raise
        os._exit(0)
    _taken = init.seal()
    if child.apart is None:
        syscalls.prctl(abi.PR_SET_PDEATHSIG, signals.SIGKILL)
    os.setsid()
    init.enter_joined(process, child, size[0], size[1], warning)
