"""Thin wrappers: one function per system call, each raising OSError with the call's name and what it was about.

Who calls this: the rest of `kestrel.linux`, and the runtime where a call stands for itself. What Python's `os`
already offers is not repeated here. A failed call raises `OSError(errno, "call: reason", subject)`, whose text reads
`[Errno 2] move_mount: No such file or directory: '/proc'`.

libc is reached in two ways. `CDLL` drops the interpreter lock during a call, which the daemon's threads want.
`PyDLL` keeps it: after clone3 the child has one thread, and a lock that another thread might hold would never be
released (research: fork hazards of Python), so clone3 goes that way.
"""

from __future__ import annotations

import ctypes
import os

from kestrel.linux import abi, structures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_held = ctypes.PyDLL(None, use_errno=True)

_int, _uint, _long, _ulong = ctypes.c_int, ctypes.c_uint, ctypes.c_long, ctypes.c_ulong
_str, _ptr, _size = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t

Path = str | bytes


def _function(name: str, *argtypes: Any) -> Any:
    function = _libc[name]
    function.argtypes = argtypes
    return function


def _numbered(*argtypes: Any, library: Any = _libc) -> Any:
    """Return `syscall(2)` with the given argument types; each call site gets its own function object."""
    function = library["syscall"]
    function.restype = _long
    function.argtypes = (_long, *argtypes)
    return function


_signal = _function("signal", _int, _ptr)
_mount = _function("mount", _str, _str, _str, _ulong, _str)
_umount2 = _function("umount2", _str, _int)
_unshare = _function("unshare", _int)
_setns = _function("setns", _int, _int)
_setfsuid = _function("setfsuid", _uint)
_setfsgid = _function("setfsgid", _uint)
_prctl = _function("prctl", _int, _ulong, _ulong, _ulong, _ulong)
_capset = _function("capset", _ptr, _ptr)
_capget = _function("capget", _ptr, _ptr)
_fstatfs = _function("fstatfs", _int, _ptr)
_sethostname = _function("sethostname", _str, _size)
_setdomainname = _function("setdomainname", _str, _size)
_pivot_root = _numbered(_str, _str)
_open_tree = _numbered(_int, _str, _uint)
_move_mount = _numbered(_int, _str, _int, _str, _uint)
_fsopen = _numbered(_str, _uint)
_fsconfig = _numbered(_int, _uint, _str, _str, _int)
_fsmount = _numbered(_int, _uint, _uint)
_mount_setattr = _numbered(_int, _str, _uint, _ptr, _size)
_openat2 = _numbered(_int, _str, _ptr, _size)
_close_range = _numbered(_uint, _uint, _uint)
_seccomp = _numbered(_uint, _uint, _ptr)
_keyctl = _numbered(_int, _str)
_bpf = _numbered(_int, _ptr, _uint)
_execveat = _numbered(_int, _str, _ptr, _ptr, _int)
_clone3 = _numbered(_ptr, _size, library=_held)
_sched_setattr = _numbered(_int, _ptr, _uint)
_set_mempolicy = _numbered(_int, _str, _ulong)
_pidfd_getfd = _numbered(_int, _int, _uint)
_ioprio_set = _numbered(_int, _int, _int)
_personality = _function("personality", _ulong)


def failure(call: str, subject: object = None, errno: int | None = None) -> OSError:
    """Return the OSError for a call that just failed (the thread's errno unless one is given)."""
    number = ctypes.get_errno() if errno is None else errno
    return OSError(number, f"{call}: {os.strerror(number)}", None if subject is None else _shown(subject))


def _shown(subject: object) -> object:
    return os.fsdecode(subject) if isinstance(subject, bytes) else subject


def _bytes(text: Path) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def mount(source: Path | None, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    """`man 2 mount`."""
    arguments = [None if word is None else _bytes(word) for word in (source, target, kind, data)]
    if _mount(arguments[0], arguments[1], arguments[2], flags, arguments[3]):
        raise failure("mount", target)


def umount(target: Path, flags: int = 0) -> None:
    """`man 2 umount2`."""
    if _umount2(_bytes(target), flags):
        raise failure("umount", target)


def pivot_root(new: Path, old: Path) -> None:
    """`man 2 pivot_root`."""
    if _pivot_root(abi.NR_PIVOT_ROOT, _bytes(new), _bytes(old)) < 0:
        raise failure("pivot_root", new)


def open_tree(directory: int, path: Path, flags: int) -> int:
    """`man 2 open_tree`: a descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy of it."""
    fd: int = _open_tree(abi.NR_OPEN_TREE, directory, _bytes(path), flags | abi.OPEN_TREE_CLOEXEC)
    if fd < 0:
        raise failure("open_tree", path)
    return fd


def move_mount(source: int, target: int, *, target_path: Path = "", subject: object = None) -> None:
    """`man 2 move_mount`: put the mount `source` (a descriptor) onto the place `target` (a descriptor) names."""
    flags = abi.MOVE_MOUNT_F_EMPTY_PATH | (0 if target_path else abi.MOVE_MOUNT_T_EMPTY_PATH)
    if _move_mount(abi.NR_MOVE_MOUNT, source, b"", target, _bytes(target_path), flags) < 0:
        raise failure("move_mount", subject or target_path or None)


def fsopen(kind: str) -> int:
    """`man 2 fsopen`: a new filesystem context."""
    fd: int = _fsopen(abi.NR_FSOPEN, kind.encode("ascii"), abi.FSOPEN_CLOEXEC)
    if fd < 0:
        raise failure("fsopen", kind)
    return fd


def fsconfig(context: int, command: int, key: str | None = None, value: Path | None = None, extra: int = 0) -> None:
    """`man 2 fsconfig`. A failure carries what the filesystem wrote into the context's message log, if anything."""
    name = None if key is None else _bytes(key)
    if _fsconfig(abi.NR_FSCONFIG, context, command, name, None if value is None else _bytes(value), extra) < 0:
        number = ctypes.get_errno()
        said = _context_messages(context)
        error = failure("fsconfig", key if value is None else f"{key}={_shown(value)}", number)
        if said:
            error.strerror = f"{error.strerror} ({said})"
        raise error


def _context_messages(context: int) -> str:
    """Read the filesystem context's log: lines such as `e overlay: ...` (Documentation/filesystems/mount_api)."""
    lines: list[str] = []
    try:
        while len(lines) < 8:
            line = os.read(context, 4096)
            if not line:
                break
            lines.append(line.decode("utf-8", "replace").strip().removeprefix("e ").removeprefix("w "))
    except OSError:
        pass  # ENODATA: no more messages
    return "; ".join(lines)


def fsmount(context: int, attributes: int = 0) -> int:
    """`man 2 fsmount`: a detached mount of a configured context."""
    fd: int = _fsmount(abi.NR_FSMOUNT, context, abi.FSMOUNT_CLOEXEC, attributes)
    if fd < 0:
        raise failure("fsmount")
    return fd


def mount_setattr(
    directory: int,
    path: Path,
    flags: int,
    *,
    add: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns: int = 0,
) -> None:
    """`man 2 mount_setattr`."""
    attributes = structures.MountAttr(add, clear, propagation, userns)
    size = ctypes.sizeof(attributes)
    if _mount_setattr(abi.NR_MOUNT_SETATTR, directory, _bytes(path), flags, ctypes.byref(attributes), size) < 0:
        raise failure("mount_setattr", path or None)


def openat2(directory: int, path: Path, flags: int, resolve: int = 0, mode: int = 0) -> int:
    """`man 2 openat2`; the descriptor is close-on-exec."""
    how = structures.OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd: int = _openat2(abi.NR_OPENAT2, directory, _bytes(path), ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        # EAGAIN: a rename raced with a ".." under RESOLVE_IN_ROOT; the man page tells callers to retry.
        if ctypes.get_errno() != 11:
            raise failure("openat2", path)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """`man 2 close_range`."""
    if _close_range(abi.NR_CLOSE_RANGE, first, last, flags) < 0:
        raise failure("close_range")


def unshare(flags: int) -> None:
    """`man 2 unshare`."""
    if _unshare(flags):
        raise failure("unshare")


def setns(fd: int, kinds: int) -> None:
    """`man 2 setns`: `fd` is a namespace, or a pidfd with one or more CLONE_NEW* kinds."""
    if _setns(fd, kinds):
        raise failure("setns")


def set_filesystem_ids(uid: int, gid: int) -> None:
    """`man 2 setfsuid`, `man 2 setfsgid`: whose the files are that this thread makes.

    Neither call reports an error; asking again, with an id that is none, returns what is set now.
    """
    _setfsgid(gid)
    _setfsuid(uid)
    if _setfsgid(0xFFFFFFFF) != gid or _setfsuid(0xFFFFFFFF) != uid:
        raise failure("setfsuid", f"{uid}:{gid}", 1)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """`man 2 prctl`."""
    result: int = _prctl(option, a, b, c, d)
    if result < 0:
        raise failure("prctl")
    return result


def set_process_name(name: str) -> None:
    """Set the name that ps and /proc/PID/comm show (at most 15 bytes; `man 5 proc`)."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, name.encode()[:15])
    finally:
        os.close(fd)


def default_signals(numbers: Sequence[int]) -> None:
    """Give signals their default action (`man 2 signal`), behind the interpreter's back: for a process that will exec.

    Python's own function goes through enumerations, and writes to a hundred pages that a fork shares.
    """
    for number in numbers:
        _signal(number, None)  # SIG_DFL is 0


def clone3(flags: int, *, exit_signal: int = 17, cgroup: int = -1) -> tuple[int, int]:
    """`man 2 clone3`: fork with flags. Returns (pid, pidfd) to the parent and (0, -1) to the child.

    `cgroup` is a directory of cgroup v2 that the child is born in. `exit_signal` must be 0 with CLONE_PARENT.
    Only for a process with one thread.
    """
    pidfd = ctypes.c_int(-1)
    arguments = structures.CloneArgs(
        flags=flags | abi.CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal
    )
    size = 64  # CLONE_ARGS_SIZE_VER0, which 5.3 knows
    if cgroup >= 0:
        arguments.flags |= abi.CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
        size = ctypes.sizeof(arguments)
    pid: int = _clone3(abi.NR_CLONE3, ctypes.byref(arguments), size)
    if pid < 0:
        raise failure("clone3")
    if pid == 0:
        # What os.fork() does in the child: the interpreter forgets signals and locks of the parent.
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    return pid, pidfd.value


def capget() -> tuple[int, int, int]:
    """Return this thread's effective, permitted and inheritable capabilities as bit masks."""
    header = structures.CapHeader(abi.LINUX_CAPABILITY_VERSION_3, 0)
    data = (structures.CapData * 2)()
    if _capget(ctypes.byref(header), ctypes.byref(data)):
        raise failure("capget")
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capabilities from bit masks (`man 2 capset`)."""
    header = structures.CapHeader(abi.LINUX_CAPABILITY_VERSION_3, 0)
    data = (structures.CapData * 2)(
        *(
            structures.CapData(
                effective >> shift & 0xFFFFFFFF, permitted >> shift & 0xFFFFFFFF, inheritable >> shift & 0xFFFFFFFF
            )
            for shift in (0, 32)
        )
    )
    if _capset(ctypes.byref(header), ctypes.byref(data)):
        raise failure("capset")


def seccomp_filter(program: bytes, flags: int = 0) -> int:
    """Install a compiled seccomp filter on this thread (`man 2 seccomp`, SECCOMP_SET_MODE_FILTER).

    Returns the listener's descriptor with SECCOMP_FILTER_FLAG_NEW_LISTENER, otherwise 0.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = structures.SockFprog(len(program) // 8, ctypes.addressof(buffer))
    result: int = _seccomp(abi.NR_SECCOMP, abi.SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(fprog))
    if result < 0:
        raise failure("seccomp")
    return result


def pidfd_getfd(pidfd: int, number: int) -> int:
    """Return a copy of another process's descriptor (`man 2 pidfd_getfd`), close-on-exec."""
    fd: int = _pidfd_getfd(abi.NR_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        raise failure("pidfd_getfd", number)
    return fd


def join_session_keyring(name: str) -> None:
    """Give this process a session keyring of its own (`man 2 keyctl`), so that it does not share its parent's."""
    if _keyctl(abi.NR_KEYCTL, abi.KEYCTL_JOIN_SESSION_KEYRING, name.encode()) < 0:
        raise failure("keyctl")


def filesystem_type(fd: int) -> int:
    """Return the magic number of the filesystem a descriptor is on (`man 2 fstatfs`)."""
    buffer = structures.Statfs()
    if _fstatfs(fd, ctypes.byref(buffer)):
        raise failure("fstatfs")
    magic: int = buffer.f_type
    return magic & 0xFFFFFFFF


def bpf(number: int, command: int, attributes: int, size: int) -> int:
    """`man 2 bpf`; `number` is the system call's on this architecture, `attributes` an address."""
    result: int = _bpf(number, command, attributes, size)
    if result < 0:
        raise failure("bpf")
    return result


def sethostname(name: str) -> None:
    """`man 2 sethostname`, in the caller's UTS namespace."""
    encoded = name.encode()
    if _sethostname(encoded, len(encoded)):
        raise failure("sethostname", name)


def setdomainname(name: str) -> None:
    """`man 2 setdomainname`, in the caller's UTS namespace."""
    encoded = name.encode()
    if _setdomainname(encoded, len(encoded)):
        raise failure("setdomainname", name)


def sched_setattr(policy: int, flags: int, nice: int, priority: int, times: tuple[int, int, int]) -> None:
    """`man 2 sched_setattr` for this thread; `times` are runtime, deadline and period in nanoseconds."""
    attributes = structures.SchedAttr(ctypes.sizeof(structures.SchedAttr), policy, flags, nice, priority, *times)
    if _sched_setattr(abi.NR_SCHED_SETATTR, 0, ctypes.byref(attributes), 0) < 0:
        raise failure("sched_setattr")


def ioprio_set(value: int) -> None:
    """`man 2 ioprio_set` for this thread: the class in the upper three bits of sixteen, the priority below."""
    if _ioprio_set(abi.NR_IOPRIO_SET, 1, 0, value) < 0:
        raise failure("ioprio_set")


def set_mempolicy(mode: int, nodes: Collection[int]) -> None:
    """`man 2 set_mempolicy` for this thread, and what it executes: a mode with its flags, and nodes of memory."""
    bits = sum(1 << node for node in nodes)
    mask = bits.to_bytes(max(nodes, default=0) // 64 * 8 + 8, "little") if nodes else None
    # The kernel takes one bit less than it is told (get_nodes in mm/mempolicy.c).
    if _set_mempolicy(abi.NR_SET_MEMPOLICY, mode, mask, len(mask) * 8 + 1 if mask else 1) < 0:
        raise failure("set_mempolicy")


def personality(domain: int) -> None:
    """`man 2 personality`."""
    if _personality(domain) < 0:
        raise failure("personality")


def execveat(fd: int, argv: Sequence[bytes], env: Sequence[bytes]) -> None:
    """Replace this process by the program behind `fd` (`man 2 execveat`, AT_EMPTY_PATH). Returns only by raising."""
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    environment = (ctypes.c_char_p * (len(env) + 1))(*env, None)
    _execveat(abi.NR_EXECVEAT, fd, b"", arguments, environment, abi.AT_EMPTY_PATH)
    raise failure("execveat")
