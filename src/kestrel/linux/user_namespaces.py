"""User namespaces: another numbering of users and groups (`man 7 user_namespaces`).

A namespace exists as long as a process is in it or a descriptor of it is open. `make` wants only the latter: a process
is born into a new one, its maps are written by us from outside, which needs CAP_SETUID and CAP_SETGID but allows any
range, and it is ended. What is left is a descriptor: for setns(2), and for id-mapped mounts (`mounts.map_ids`).

Who owns a namespace of another type decides which rights count over it: a network namespace that is made in a user
namespace can be configured by that one's root, and by no other but the host's. `make` can make such ones too.
"""

import errno
import os

from kestrel.linux import abi, signals, syscalls

Spare = tuple[int, int]
"""A process in namespaces that wait for somebody: its pid and pidfd."""
Range = tuple[int, int, int]
"""(first id inside, first id outside, how many), as in a line of /proc/PID/uid_map."""


def make(uids: "tuple[Range, ...]", gids: "tuple[Range, ...]", *, enter: int = 0, spare: "Spare | None" = None) -> int:
    """Return a descriptor of a new user namespace with these maps. Only for a process with one thread.

    `enter` are CLONE_NEW* bits of other types: one of each is made that belongs to it, and the caller enters them.
    With a `spare` they are its own; the caller has to `end` it.
    """
    source = spare or born(enter)
    try:
        return _take(source[1], uids, gids, enter)
    finally:
        if spare is None:
            end(source)


def born(namespaces: int) -> "Spare":
    """Start a process in a new user namespace without maps, and in others that belong to it.

    It sleeps until `make` or `end` end it, or its parent's end does.
    """
    parent = os.getpid()
    # No signal at its end: whoever waits for all children must not take this one for its own.
    pid, pidfd = syscalls.clone3(abi.CLONE_NEWUSER | namespaces, exit_signal=0)
    if pid == 0:
        try:
            syscalls.prctl(abi.PR_SET_PDEATHSIG, signals.SIGKILL)
            while os.getppid() == parent:  # it may have ended before that was asked for
                signals.pause()
        finally:
            os._exit(0)
    return pid, pidfd


def _take(pidfd: int, uids: "tuple[Range, ...]", gids: "tuple[Range, ...]", enter: int) -> int:
    """Write the maps of a process's user namespace, enter its others; return the namespace."""
    process = f"/proc/{_number(pidfd)}"
    for name, ranges in (("uid_map", uids), ("gid_map", gids)):
        _write(f"{process}/{name}", "".join(f"{inside} {outside} {size}\n" for inside, outside, size in ranges))
    if enter:
        syscalls.setns(pidfd, enter)
    return os.open(f"{process}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def end(spare: "Spare") -> None:
    """End a process that was `born`, and with it the namespaces that nobody has taken."""
    pid, pidfd = spare
    signals.pidfd_send_signal(pidfd, signals.SIGKILL)
    os.close(pidfd)
    os.waitpid(pid, abi.WALL)


def maps(namespace: int) -> "tuple[tuple[Range, ...], tuple[Range, ...]]":
    """Return the maps of an existing user namespace, as seen from ours. Only for a process with one thread."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = syscalls.clone3(0, exit_signal=0)
    if pid == 0:
        try:
            syscalls.setns(namespace, abi.CLONE_NEWUSER)
            os.write(writer, b".")
            while True:
                signals.pause()
        finally:
            os._exit(0)
    os.close(writer)
    try:
        if not os.read(reader, 1):
            raise OSError(errno.EINVAL, "it is not a user namespace that can be entered")
        return _read(f"/proc/{_number(pidfd)}/uid_map"), _read(f"/proc/{_number(pidfd)}/gid_map")
    finally:
        os.close(reader)
        signals.pidfd_send_signal(pidfd, signals.SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, abi.WALL)


def _read(path: str) -> "tuple[Range, ...]":
    with open(path, encoding="ascii") as file:
        lines = [line.split() for line in file]
    return tuple((int(inside), int(outside), int(size)) for inside, outside, size in lines)


def _number(pidfd: int) -> int:
    """Return the number by which /proc knows a process: ours is of another PID namespace in a container's init."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("Pid:"))


def _write(path: str, text: str) -> None:
    """Write a map, which the kernel takes in one piece and only once."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise syscalls.failure(f"write {text.strip()!r}", path, error.errno) from None
    finally:
        os.close(fd)
