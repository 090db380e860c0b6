"""Stage 0: the half of making a container that stays outside, and the same for a process that joins one.

`create` clones the child straight into its new namespaces, and on cgroup v2 into its group; everything it needs is in
its memory, so the parent has nothing more to send than "go". `join` makes a process in a container that runs: a
first child lets go of every descriptor of the host, joins the namespaces through the container's pidfd, and clones
the real one with CLONE_PARENT, so that it is this process's child too. Until then nothing in the container's PID
namespace can see it, and after it there is nothing of the host's to see (CVE-2016-9962).

Only for a process with one thread (research/runtime section 4, row 29).
"""

import os
import signal
import socket
from dataclasses import dataclass
from typing import NoReturn

from kestrel.linux import abi, syscalls
from kestrel.linux.cgroups import Group
from kestrel.runtime import init
from kestrel.runtime.channel import Channel, pair
from kestrel.runtime.init import Apart, Child, Stdio
from kestrel.runtime.plan import Plan
from kestrel.runtime.process import Process, set_oom_score

JOINED = (
    abi.CLONE_NEWNS | abi.CLONE_NEWPID | abi.CLONE_NEWNET | abi.CLONE_NEWIPC | abi.CLONE_NEWUTS | abi.CLONE_NEWCGROUP
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A child that is getting ready: it will say so on the channel. The caller closes both descriptors."""

    pid: int
    pidfd: int
    channel: socket.socket


def create(
    plan: Plan, group: "Group | None", stdio: Stdio, pid_namespace: int = -1, apart: "Apart | None" = None
) -> Started:
    """Start a container's first process; it stops before exec until it is told to go.

    `pid_namespace` is a descriptor of the PID namespace to be born in, when the plan does not make one and it is not
    our own. With `apart` it outlives this process.
    """
    own_cgroups = bool(plan.new & abi.CLONE_NEWCGROUP)
    # The cgroup namespace is made by the child, once it is in its group.
    flags = plan.new & ~abi.CLONE_NEWCGROUP
    ours, theirs = pair()
    joiners = group.joiners() if group is not None else []
    try:
        pid, pidfd = _clone(flags, group, pid_namespace)
        if pid == 0:
            channel = Channel(theirs)
            child = Child(channel=channel, stdio=stdio, joiners=joiners, own_cgroup_namespace=own_cgroups, apart=apart)
            init.run(plan, child)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in joiners:
            os.close(fd)
    return Started(pid=pid, pidfd=pidfd, channel=ours)


def _clone(flags: int, group: "Group | None", pid_namespace: int) -> tuple[int, int]:
    """clone3(2), into the group where the kernel can do that, and into another PID namespace when asked."""
    directory = group.directory() if group is not None else -1
    if pid_namespace >= 0:
        syscalls.setns(pid_namespace, abi.CLONE_NEWPID)  # for children only (`man 2 setns`)
    try:
        return syscalls.clone3(flags, cgroup=directory)
    finally:
        if directory >= 0:
            os.close(directory)
        if pid_namespace >= 0:
            _back_to_own_pid_namespace()


def _back_to_own_pid_namespace() -> None:
    with open("/proc/self/ns/pid", "rb", buffering=0) as own:
        syscalls.setns(own.fileno(), abi.CLONE_NEWPID)


def join(
    target: int,
    process: Process,
    group: "Group | None",
    stdio: Stdio,
    size: tuple[int, int] = (0, 0),
    apart: "Apart | None" = None,
) -> Started:
    """Start another process in the container whose first process is behind the pidfd `target`.

    The answer's `pid` is the go-between's, which ends at once; the real process's number comes as the first message
    on the channel, `{"pid": N}`.
    """
    ours, theirs = pair()
    joiners = group.joiners() if group is not None else []
    try:
        pid, pidfd = _clone(0, group, -1)
        if pid == 0:
            child = Child(channel=Channel(theirs), stdio=stdio, joiners=joiners, apart=apart)
            init.guarded(child.channel, lambda: _go_between(target, process, child, size))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in joiners:
            os.close(fd)
    return Started(pid=pid, pidfd=pidfd, channel=ours)


def _go_between(target: int, process: Process, child: Child, size: tuple[int, int]) -> NoReturn:
    init.reset_signals()
    init.close_others(child, target)
    warning = None
    if process.oom_score_adj is not None:
        warning = set_oom_score(process.oom_score_adj)
    init.join_cgroups(child)
    syscalls.setns(target, JOINED)
    os.close(target)
    pid, pidfd = syscalls.clone3(abi.CLONE_PARENT, exit_signal=0)
    if pid:
        child.channel.send({"pid": pid}, [pidfd])
        os._exit(0)
    _taken = init.seal()
    if child.apart is None:
        syscalls.prctl(abi.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    init.enter_joined(process, child, size[0], size[1], warning)
