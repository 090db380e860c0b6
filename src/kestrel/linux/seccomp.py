"""Seccomp profiles (the OCI form) to BPF programs, through libseccomp, compiled once.

Compiling takes milliseconds and memory, so it is done in a child that ends, and the program is kept in a file named
by the profile's hash. `program` is what the runtime calls; `compile_profile` does the work.
"""

from __future__ import annotations

import ctypes
import os
import struct

try:
    from _blake2 import blake2b  # hashlib would bring OpenSSL, megabytes that every shim would map
except ImportError:  # an interpreter that is built differently
    from hashlib import blake2b

from kestrel.base import plainjson
from kestrel.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION = b"2"  # of the way we compile; a change makes cached programs unknown

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_UNKNOWN_SYSCALL = -1  # __NR_SCMP_ERROR
_ENOSYS = _ACTIONS["SCMP_ACT_ERRNO"] | 38
_TELLING = (_ENOSYS, _ACTIONS["SCMP_ACT_ALLOW"], _ACTIONS["SCMP_ACT_LOG"])
"""Default actions after which a call that does not exist, or is not known, says so."""
_EEXIST = 17
_CTL_BADARCH, _CTL_NNP, _CTL_OPTIMIZE = 2, 3, 8


# `struct sock_filter` operations (linux/bpf_common.h): load a word, jump on a comparison with a constant, return.
_LOAD, _EQUAL, _ABOVE, _AT_LEAST, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
_X32 = 0x40000000  # numbers from here on are x32's, not new ones


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` (`man 3 seccomp_rule_add`)."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def program(profile: Mapping[str, Any], cache: str) -> bytes:
    """Return the compiled program of a profile, from `cache` (a private directory) when it is there.

    Raises ValueError for a profile that is wrong, OSError when libseccomp is missing or refuses.
    """
    text = plainjson.dumps(profile, sort_keys=True).encode()
    digest = blake2b(VERSION + os.uname().machine.encode() + text, digest_size=32).hexdigest()
    path = f"{cache}/{digest}.bpf"
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        pass
    compiled = _in_child(profile)
    os.makedirs(cache, 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(compiled)
    os.replace(temporary, path)
    return compiled


def _in_child(profile: Mapping[str, Any]) -> bytes:
    """Compile in a fork, so that the library and its heap are not ours to keep."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = syscalls.clone3(0)
    if pid == 0:
        code = 1
        try:
            result = b"+" + compile_profile(profile)
            code = 0
        except BaseException as error:  # noqa: BLE001 - told to the parent as text
            result = b"-" + str(error).encode()
        try:
            while result:
                result = result[os.write(writer, result) :]
        finally:
            os._exit(code)
    os.close(writer)
    try:
        parts = []
        while part := os.read(reader, 65536):
            parts.append(part)
        try:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        except ChildProcessError:
            pass  # a handler of the caller was quicker
    finally:
        os.close(reader)
        os.close(pidfd)
    answer = b"".join(parts)
    if not answer.startswith(b"+"):
        raise ValueError(answer[1:].decode(errors="replace") or "the process that compiled the profile was killed")
    return answer[1:]


def compile_profile(profile: Mapping[str, Any]) -> bytes:
    """Return the BPF program of a profile. Unknown system calls are left out: this machine does not have them."""
    library = _library()
    default = _action(profile.get("defaultAction", ""), profile.get("defaultErrnoRet"))
    if default == _ACTIONS["SCMP_ACT_NOTIFY"]:
        raise ValueError("SCMP_ACT_NOTIFY cannot be used as default action")
    context = library.seccomp_init(default)
    if not context:
        raise ValueError(f"defaultAction {profile.get('defaultAction')!r} is not one libseccomp knows")
    try:
        # A program for an architecture that is not listed: its system calls do not exist, rather than kill it.
        library.seccomp_attr_set(context, _CTL_BADARCH, _ENOSYS)
        library.seccomp_attr_set(context, _CTL_NNP, 0)  # the runtime decides about no_new_privs
        library.seccomp_attr_set(context, _CTL_OPTIMIZE, 2)  # a binary tree; libseccomp 2.5 has it
        for name in profile.get("architectures") or ():
            _add_architecture(library, context, name)
        for rule in profile.get("syscalls") or ():
            _add_rule(library, context, rule, default)
        newer = b"" if default in _TELLING else _unknown_to(profile, library)
        return newer + _export(library, context)
    finally:
        library.seccomp_release(context)


def _unknown_to(profile: Mapping[str, Any], library: Any) -> bytes:
    """Return instructions to put in front: a call that is newer than all the profile names is ENOSYS.

    Its author cannot have meant to refuse it, and a library that is told EPERM does not fall back (moby #42680).
    `struct seccomp_data` begins with the number and the architecture (`man 2 seccomp`).
    """
    names = [str(name).encode() for rule in profile.get("syscalls") or () for name in rule.get("names") or ()]
    words = [str(name).removeprefix("SCMP_ARCH_").lower() for name in profile.get("architectures") or ()]
    tokens = {library.seccomp_arch_native(), *(library.seccomp_arch_resolve_name(word.encode()) for word in words)}
    newest = {
        token: max((library.seccomp_syscall_resolve_name_arch(token, n) for n in names), default=-1) for token in tokens
    }
    known = sorted((token, number) for token, number in newest.items() if number >= 0)
    code = [(_LOAD, 0, 0, 4)]
    for index, (token, number) in enumerate(known):
        end = 5 * (len(known) - index - 1)  # instructions of the architectures that follow
        code += [(_EQUAL, 0, 4, token), (_LOAD, 0, 0, 0), (_AT_LEAST, end + 2, 0, _X32), (_ABOVE, 0, end + 1, number)]
        code += [(_RETURN, 0, 0, _ENOSYS)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code) if known else b""


def _library() -> Any:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise OSError(error.errno or 2, "libseccomp.so.2 is not installed, and a seccomp profile needs it") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def _action(name: str, errno_value: int | None) -> int:
    if name not in _ACTIONS:
        known = ", ".join(_ACTIONS)
        raise ValueError(f"unknown action {name!r} (known: {known})")
    value = _ACTIONS[name]
    if name in _WITH_DATA:
        value |= (1 if errno_value is None else errno_value) & 0xFFFF  # EPERM, as the spec has it
    return value


def _add_architecture(library: Any, context: int, name: str) -> None:
    word = name.removeprefix("SCMP_ARCH_").lower()
    token = library.seccomp_arch_resolve_name(word.encode())
    if token == 0:
        raise ValueError(f"unknown architecture {name}")
    result = library.seccomp_arch_add(context, token)
    if result < 0 and -result != _EEXIST:
        raise ValueError(f"architecture {name}: {os.strerror(-result)}")


def _add_rule(library: Any, context: int, rule: Mapping[str, Any], default: int) -> None:
    action = _action(rule.get("action", ""), rule.get("errnoRet"))
    if action == default:
        return  # libseccomp refuses a rule that says what is so anyway
    names = rule.get("names") or ()
    if action == _ACTIONS["SCMP_ACT_NOTIFY"] and "write" in names:
        raise ValueError("SCMP_ACT_NOTIFY cannot be used for the write syscall")  # it tells where to listen
    comparisons = [_comparison(entry) for entry in rule.get("args") or ()]
    # Several conditions on one argument are alternatives to libseccomp's callers, but it wants a rule for each.
    indexes = [entry.arg for entry in comparisons]
    groups = [[entry] for entry in comparisons] if len(set(indexes)) != len(indexes) else [comparisons]
    for name in names:
        number = library.seccomp_syscall_resolve_name(str(name).encode())
        if number == _UNKNOWN_SYSCALL:
            continue
        for group in groups:
            array = (_Comparison * len(group))(*group)
            result = library.seccomp_rule_add_array(context, action, number, len(group), ctypes.byref(array))
            if result < 0 and -result != _EEXIST:
                raise ValueError(f"rule for {name}: {os.strerror(-result)}")


def _comparison(entry: Mapping[str, Any]) -> _Comparison:
    operator = _OPERATORS.get(str(entry.get("op")))
    if operator is None:
        raise ValueError(f"unknown operator {entry.get('op')!r}")
    if not 0 <= entry["index"] <= 5:
        raise ValueError(f"argument index {entry['index']} is not from 0 to 5")
    return _Comparison(entry["index"], operator, entry["value"], entry.get("valueTwo", 0))


def _export(library: Any, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = library.seccomp_export_bpf(context, fd)
        if result < 0:
            raise ValueError(f"export: {os.strerror(-result)}")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
