"""What a sandbox is to the kernel: namespaces that outlive its containers, and protection from the OOM killer.

The network, IPC and UTS namespaces are its shim's own (unless the sandbox uses the host's), so containers inherit them
by being cloned. A shared PID namespace is held by a child that sleeps and reaps.
"""

from __future__ import annotations

import os

from kestrel.base.values import dataclass
from kestrel.linux import abi, signals, syscalls
from kestrel.linux.mounts import opened
from kestrel.runtime import names, validate
from kestrel.runtime.messages import SandboxRequest
from kestrel.runtime.place import Place
from kestrel.runtime.plan import KINDS
from kestrel.runtime.process import set_oom_score
from kestrel.runtime.users import Ids, ranges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from kestrel.linux.user_namespaces import Spare

OOM_SCORE = -900


def owned(request: SandboxRequest) -> frozenset[str]:
    """Return the types of namespace that are the sandbox's own."""
    kinds = {"uts"} if request.hostname or request.domainname or not request.host_network else set()
    if not request.host_network:
        kinds.add("network")
    if not request.host_ipc:
        kinds.add("ipc")
    return frozenset(kinds)


def make_namespaces(request: SandboxRequest, spare: Spare | None) -> dict[Ids, int]:
    """Take the sandbox's namespaces; returns its user namespace, if it has one."""
    own = owned(request)
    new = sum(KINDS[kind] for kind in own)
    found = {}
    if request.uid_mappings:
        ids = ranges(request.uid_mappings, request.gid_mappings, "sandbox")
        usable = spare if not request.host_network and not request.host_ipc else None
        found[ids] = ids.make(enter=new, spare=usable)
    else:
        syscalls.unshare(new)
    if not request.host_network:
        names.RaiseLoopback().execute(Place())
    if request.hostname or request.domainname:
        names.SetNames(request.hostname, request.domainname).execute(Place())
    for name, value in request.sysctls.items():
        validate.sysctl(name, value, own)
    names.write_sysctls(request.sysctls)
    return found


def hold_namespaces() -> list[int]:
    """Return descriptors of the namespaces that this process is in, for `enter_namespaces`."""
    return [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "ipc", "uts")]


def enter_namespaces(held: Iterable[int]) -> None:
    """Enter namespaces that are held."""
    for fd in held:
        syscalls.setns(fd, 0)


def avoid_oom_killer(keeper: int) -> int:
    """Ask not to be the one who is killed for memory, since the whole sandbox would die; return what it was before.

    It needs CAP_SYS_RESOURCE; without it nothing changes.
    """
    with opened(os.open("/proc/self/oom_score_adj", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        before = int(os.read(fd, 16))
    for process in (keeper, "self"):
        set_oom_score(OOM_SCORE, process)
    return before


@dataclass(frozen=True, slots=True)
class Pause:
    """The process that is PID 1 of the sandbox's shared PID namespace: the namespace, and what the process waits on.

    It ends when nobody holds `alive` any more. A signal at its parent's death would not do: it is not sent if the
    parent is gone before it was asked for.
    """

    namespace: int
    alive: int

    @classmethod
    def begin(cls) -> Self:
        """Start it."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid, pidfd = syscalls.clone3(abi.CLONE_NEWPID | abi.CLONE_PARENT, exit_signal=0)
        if pid == 0:
            try:
                syscalls.set_process_name("kestrel-pause")
                signals.signal(signals.SIGCHLD, signals.SIG_IGN)  # the kernel reaps what it inherits
                os.dup2(reader, 0)
                syscalls.close_range(3)
                os.read(0, 1)
            finally:
                os._exit(1)
        os.close(pidfd)
        os.close(reader)
        return cls(os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC), writer)
