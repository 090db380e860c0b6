"""Faults at every step of the runtime, on purpose: the step before which a process dies, or the call that fails.

    faults = Faults(directory)
    zygote = faults.zygote(cache)                 the runtime's own code, with its calls to the kernel counted
    faults.watch("init"); ...; faults.steps()     what a whole life does: (37, "move_mount in ..."), ...
    faults.arm("init", 37, KILL); ...             the same life again: its init dies before that call

Nothing of this is in the product. The programs that are started here replace what `os`, `kestrel.linux.syscalls` and
the sockets offer by the same with a count in front, and then run the product's `main`. Roles are told apart by who
was forked by whom: zygote, keeper, shim, spare (which holds namespaces), pause, init, joiner (which enters a
container's namespaces) and joined. A `command` is forked by a shell of ours that has loaded it before, since there
are thousands. What is armed, and what was done, stands in memory that all of them share, so it can be read and written
from outside at any moment, and by a process that has no files left.

A process that is to die sends itself SIGKILL; the first one of a PID namespace, which the kernel would spare, exits.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from kestrel.linux import abi
from kestrel.linux.syscalls import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from kestrel.engine.shims import Zygote

SIZE = 1 << 20
HEAD = struct.Struct("=16sIiII")  # role, number of the step, what happens, fired, bytes of the record
KILL = -1
"""What `arm` is told for death; any other number is the errno of a call that fails."""
WATCH = 0  # instead of these: nothing happens, and every step is noted
MARK = "KTEST_FAULTS"
"""In the environment of everything that is started here, so that it can be found again."""

CALLS = {
    "os": (
        "open close read write pread mkdir rmdir unlink rename replace stat lstat fstat listdir scandir access chdir "
        "chmod chown fchown dup2 pipe2 memfd_create eventfd setsid kill killpg waitpid pidfd_open setgroups setresgid "
        "setresuid sched_setaffinity getcwd readlink symlink mknod ftruncate umask fork execve"
    ).split(),
    "kestrel.linux.syscalls": (
        "mount umount pivot_root open_tree move_mount fsopen fsconfig fsmount mount_setattr openat2 close_range "
        "unshare setns prctl capset capget filesystem_type sethostname setdomainname seccomp_filter "
        "join_session_keyring bpf clone3 set_filesystem_ids default_signals"
    ).split(),
    "kestrel.linux.direct": ["fork", "prctl"],
    "builtins": ["open"],
    "kestrel.runtime.channel": ["send_some", "receive"],
}
"""What is counted: each is a call to the kernel, or a message to another process."""
UNFAILING = {"close", "close_range", "umask", "setsid", "capget", "kill", "waitpid", "receive"}
"""Calls that do not fail for a reason from outside, or whose failure is the death of a peer, which is tried as such."""
CHILDREN = {
    ("zygote", "fork"): "keeper",
    ("keeper", "fork"): "shim",
    ("shim", "clone3"): "init",
    ("shell", "fork"): "command",
}
MAKERS = {"Pause.begin": "pause", "born": "spare", "_compile_ahead": "compiler"}
ROLES = ("zygote", "keeper", "shim", "spare", "pause", "init", "joiner", "joined")

RUN = (
    "import sys; sys.path.append(sys.argv[1]); from kestrel.testing import faults; "
    "faults.run(sys.argv[2], sys.argv[3], sys.argv[4:])"
)


class Memory:
    """What is armed and what was done, in memory shared by everybody who maps the file."""

    def __init__(self, path: str, *, new: bool = False) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if new else 0), 0o600)
        os.ftruncate(fd, SIZE)
        self._map = mmap.mmap(fd, SIZE)
        os.close(fd)

    def arm(self, role: str, number: int, how: int) -> None:
        """Say what is to happen, and forget what was done."""
        HEAD.pack_into(self._map, 0, role.encode(), number, how, 0, 0)

    def armed(self) -> tuple[str, int, int]:
        """Return role, number and what happens."""
        role, number, how, _, _ = HEAD.unpack_from(self._map)
        return role.rstrip(b"\0").decode(), number, how

    @property
    def fired(self) -> bool:
        """Whether it has happened."""
        return bool(HEAD.unpack_from(self._map)[3])

    def fire(self) -> None:
        """Note that it happens now, and only once."""
        role, number, how, _, size = HEAD.unpack_from(self._map)
        HEAD.pack_into(self._map, 0, role, number, how, 1, size)

    def record(self, line: str) -> None:
        """Note a step. Of two processes at once one would undo what the other notes: only one role is watched."""
        role, number, how, fired, size = HEAD.unpack_from(self._map)
        data = line.encode() + b"\n"
        if HEAD.size + size + len(data) <= SIZE:
            start = HEAD.size + size
            self._map[start : start + len(data)] = data
            HEAD.pack_into(self._map, 0, role, number, how, fired, size + len(data))

    def lines(self) -> list[str]:
        """Return the steps that were noted."""
        size = HEAD.unpack_from(self._map)[4]
        return self._map[HEAD.size : HEAD.size + size].decode().splitlines()


# --- in the processes that are to die -------------------------------------------------------------------------------


class Counter:
    """The steps of this process. `role` changes, and the count begins again, where a fork makes another one."""

    def __init__(self, memory: Memory, role: str) -> None:
        self._memory = memory
        self._plain_exit, self._plain_kill, self._plain_pid = os._exit, os.kill, os.getpid
        self.become(role)

    def become(self, role: str) -> None:
        """Be another process from here on."""
        self.role = role
        self._number = 0

    def step(self, name: str) -> None:
        """Pass a step, unless this is where something happens."""
        self._number += 1
        role, number, how = self._memory.armed()
        if role != self.role:
            return
        if how == WATCH:
            self._memory.record(f"{self._number} {name} in {_caller()}")
        elif number <= self._number and not self._memory.fired:
            if how != KILL and name in UNFAILING:
                return  # it will be the next one that can fail
            self._memory.fire()
            self._memory.record(f"{self.role} {self._number} {name} in {_caller()}")
            if how != KILL:
                raise OSError(how, f"{name}: {os.strerror(how)} (injected)")
            self._plain_kill(self._plain_pid(), signal.SIGKILL)
            self._plain_exit(137)  # not reached but by the first process of a PID namespace

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with a step in front of it."""

        def step_and_call(*arguments: Any, **named: Any) -> Any:
            self.step(name)
            given = call(*arguments, **named)
            if (name == "fork" and given == 0) or (name == "clone3" and given[0] == 0):
                self.become(self._child(name, arguments))
            return given

        return step_and_call

    def _child(self, name: str, arguments: tuple[Any, ...]) -> str:
        maker = sys._getframe(2).f_code.co_qualname
        if maker in MAKERS:
            return MAKERS[maker]
        if name == "clone3" and self.role == "joiner":
            return "joined"
        if name == "clone3" and not arguments[0] & ~abi.CLONE_PARENT:
            return "joiner"
        return CHILDREN.get((self.role, name), "init" if name == "clone3" else "other")


def _caller() -> str:
    """Return the nearest function outside of `kestrel.linux` that makes the call, and whom it works for."""
    frame: FrameType | None = sys._getframe(3)
    names: list[str] = []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("kestrel.") and (not module.startswith("kestrel.linux") or not names):
            names.append(f"{module.removeprefix('kestrel.')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return " for ".join(names[:3])


def run(path: str, role: str, arguments: list[str]) -> None:
    """Be the zygote, or a shell of commands; `path` is that of the shared memory."""
    import importlib

    counter = Counter(Memory(path), role)
    if role == "zygote":
        from kestrel.runtime import zygote

        zygote._warm_up()
    else:
        from kestrel.runtime import agents, cold, command, console, ending, handed, verbs  # noqa: F401 - loaded before files are counted
    for name, calls in CALLS.items():
        module = importlib.import_module(name)
        for call in calls:
            setattr(module, call, counter.counted(call, getattr(module, call)))
    if role == "zygote":
        zygote.main(arguments)
    _be_shell(command.main)


def _be_shell(main: Callable[[], int]) -> None:
    prctl(abi.PR_SET_CHILD_SUBREAPER, 1)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 0)
            os.dup2(2, 1)
            sys.argv = ["kestrel-runtime", *line.rstrip("\n").split("\t")]
            os._exit(main())
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # an orphan
        except ChildProcessError:
            pass


# --- outside --------------------------------------------------------------------------------------------------------


class Faults:
    """The hand of fate, held by a test."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "faults"
        self._memory = Memory(str(self._path), new=True)
        self.token = directory.name

    def watch(self, role: str) -> None:
        """From now on note every step of processes of that role; nothing happens."""
        self._memory.arm(role, 0, WATCH)

    def steps(self) -> list[tuple[int, str]]:
        """Return the noted steps: number, and the call with who makes it."""
        parts = [line.partition(" ") for line in self._memory.lines()]
        return [(int(number), what) for number, _, what in parts if number.isdigit() and " in " in what]

    def arm(self, role: str, number: int, how: int = KILL) -> None:
        """Let something happen to the next process of that role that comes to its step of that number."""
        self._memory.arm(role, number, how)

    def disarm(self) -> None:
        """Let nothing happen."""
        self._memory.arm("", 0, WATCH)

    @property
    def happened(self) -> str:
        """Where what was armed has happened; empty if it did not."""
        return self._memory.lines()[0] if self._memory.fired else ""

    def _program(self, role: str) -> list[str]:
        source = str(Path(__file__).parents[2])
        return [sys.executable, "-I", "-S", "-X", "utf8", "-c", RUN, source, str(self._path), role]

    def zygote(self, cache: Path) -> Zygote:
        """Start a zygote whose steps, and those of its forks, are counted. If it dies, the product starts its own."""
        from kestrel.engine.shims import Zygote

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
        words = [*self._program("zygote"), "3", str(cache)]
        pid = os.posix_spawn(sys.executable, words, self.environment, file_actions=actions)
        theirs.close()
        ours.setblocking(False)
        return Zygote(pid, ours, str(cache))

    def shell(self) -> subprocess.Popen[str]:
        """Start a shell of `kestrel-runtime`: a line of words, parted by tabs, is answered by a line with a number.

        Orphans come to it, and are reaped with it.
        """
        pipe = subprocess.PIPE
        words = self._program("shell")
        null = subprocess.DEVNULL
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=null, text=True, env=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of what is started, marked."""
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", MARK: self.token}

    def alive(self) -> list[str]:
        """Return the processes that come from here, by name and number; those that only wait to be reaped are not."""
        mark = f"{MARK}={self.token}".encode()
        found = []
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(f"{Path(f'/proc/{name}/comm').read_text().strip()} {name}")
            except OSError:
                continue
        return found
