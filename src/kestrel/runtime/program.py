"""Finding the program to execute, and saying why it could not be.

execve(2) has few words: ENOENT for a missing program, a missing interpreter and a missing loader alike. `find` and
`explain` look at what is there and name it. The sentences keep the phrases that docker, podman and containerd match
on: "executable file not found", "no such file or directory", "permission denied", "exec format error".

Both run in the container's root with the process's rights, and read at most the first page of a file.
"""

import errno
import os
import stat
import struct

from kestrel.base.errors import InvalidArgument, KestrelError, NotFound, PermissionDenied
from kestrel.runtime.process import DEFAULT_PATH

NOT_FOUND = 127
NOT_EXECUTABLE = 126
INTERPRETERS = 5  # that are scripts themselves; after that it is ELOOP (exec_binprm in fs/exec.c)

_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 22: "s390x", 21: "ppc64le"}
"""ELF `e_machine` (`elf.h`) in the words of image platforms."""


def find(name: str, env: dict[str, str]) -> str:
    """Return the path that execve(2) is to be given for argv[0]. Raises NotFound or PermissionDenied.

    A path is looked at too: that it is missing, or not executable, is better known before everything else is ready.
    """
    if "/" in name:
        _look_at(name)
        return name
    refused = None
    path = env.get("PATH", DEFAULT_PATH)
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            if stat.S_ISREG(os.stat(candidate).st_mode):
                if _may_execute(candidate):
                    return candidate
                refused = refused or candidate
        except OSError:
            continue
    if refused is not None:
        raise PermissionDenied(
            f'exec: "{name}": permission denied', hint=f"{refused} is not executable; chmod +x it", exit_code=126
        )
    raise NotFound(f'exec: "{name}": executable file not found in $PATH', hint=f"PATH is {path}", exit_code=NOT_FOUND)


def _look_at(path: str) -> None:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise explain(path, PermissionError(errno.EACCES, ""))
    except (FileNotFoundError, NotADirectoryError):
        raise explain(path, FileNotFoundError(errno.ENOENT, "")) from None
    except OSError:
        return  # execve(2) says what it is
    if not _may_execute(path):
        raise explain(path, PermissionError(errno.EACCES, ""))


def _may_execute(path: str) -> bool:
    """access(2) asks for the real user without rights; who may override modes is asked for by faccessat2(2).

    That one is tried second: a seccomp profile that is in force already may not know it.
    """
    return os.access(path, os.X_OK) or os.access(path, os.X_OK, effective_ids=True)


def explain(path: str, error: OSError) -> KestrelError:
    """Return the error to report for an execve(2) of `path` that failed."""
    last, head = _last(path)
    whose = f"its interpreter {last}: " if last != path else ""
    if error.errno == errno.ENOENT:
        return _missing(path, last, head, whose)
    if error.errno == errno.EACCES:
        hint = whose + _why_not_executable(last)
        return PermissionDenied(f'exec: "{path}": permission denied', hint=hint, exit_code=NOT_EXECUTABLE)
    if error.errno == errno.ENOEXEC:
        hint = whose + _why_format(head)
        return InvalidArgument(f"exec {path}: exec format error", hint=hint, exit_code=NOT_EXECUTABLE)
    reason = os.strerror(error.errno or 0).lower()
    return InvalidArgument(f"exec {path}: {reason}", hint=None, exit_code=NOT_EXECUTABLE)


def _last(path: str) -> tuple[str, bytes]:
    """Return the file that the kernel comes to in the end, by way of scripts and their interpreters, and its head.

    It is the last one that is there: a script whose interpreter is not, or that may not be executed, is one itself.
    """
    head = _head(path)
    for _ in range(INTERPRETERS):
        interpreter = _interpreter(head)
        if not interpreter or not os.path.exists(interpreter) or not _may_execute(path):
            break
        path, head = interpreter, _head(interpreter)
    return path, head


def _interpreter(head: bytes) -> str:
    """Return what the first line of a script names, empty when it is none (`man 2 execve`, "Interpreter scripts")."""
    if not head.startswith(b"#!"):
        return ""
    words = head[2:].split(b"\n", 1)[0].replace(b"\t", b" ").strip(b" ").split(b" ", 1)
    return words[0].decode(errors="replace")


def _head(path: str) -> bytes:
    """Read the beginning of a regular file; empty when that is not possible. A FIFO or a device is not opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(fd, 65536) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def _missing(path: str, last: str, head: bytes, whose: str) -> KestrelError:
    missing = f"exec {path}: no such file or directory"
    interpreter = _interpreter(head)
    if interpreter:
        if head.split(b"\n", 1)[0].endswith(b"\r"):
            name = interpreter.rstrip("\r")
            return NotFound(
                f"{missing}: {whose}its first line ends with CRLF, so the interpreter is taken to be "
                f"{name + chr(13)!r}",
                hint=f"save {last} with Unix line endings (dos2unix, or `* text eol=lf` in .gitattributes)",
                exit_code=NOT_FOUND,
            )
        return NotFound(
            f"{missing}: {whose}its interpreter {interpreter} is not in the image",
            hint=f"install {interpreter}, or change the first line of {last}",
            exit_code=NOT_FOUND,
        )
    loader = _loader(head)
    if loader:
        return NotFound(
            f"{missing}: {whose}its loader {loader} is not in the image",
            hint="the program was built for another C library or base image; build it statically or use its own base",
            exit_code=NOT_FOUND,
        )
    return NotFound(
        f'exec: "{path}": no such file or directory', hint="the path is looked up inside the image", exit_code=NOT_FOUND
    )


def _loader(head: bytes) -> str:
    """Return PT_INTERP of an ELF file (`man 5 elf`), empty when it has none or is not one for this byte order."""
    if head[:4] != b"\x7fELF" or head[5:6] != b"\x01" or len(head) < 64:
        return ""
    wide = head[4] == 2
    offset, size, count = (
        (*struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54))
        if wide
        else (*struct.unpack_from("<I", head, 28), *struct.unpack_from("<HH", head, 42))
    )
    for index in range(min(count, 64)):
        start = offset + index * size
        if start + (40 if wide else 20) > len(head):
            break
        if struct.unpack_from("<I", head, start)[0] != 3:  # PT_INTERP
            continue
        at, length = (
            (struct.unpack_from("<Q", head, start + 8)[0], struct.unpack_from("<Q", head, start + 32)[0])
            if wide
            else (struct.unpack_from("<I", head, start + 4)[0], struct.unpack_from("<I", head, start + 16)[0])
        )
        return head[at : at + min(length, 4096)].rstrip(b"\0").decode(errors="replace")
    return ""


def _why_not_executable(path: str) -> str:
    try:
        info = os.stat(path)
    except OSError as error:
        return f"a directory on the way to it cannot be searched: {os.strerror(error.errno or 0).lower()}"
    if stat.S_ISDIR(info.st_mode):
        return "it is a directory"
    if not stat.S_ISREG(info.st_mode):
        return "it is not a regular file"
    if not info.st_mode & 0o111:
        return f"it is not executable; chmod +x {path} in the image"
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return "the filesystem it is on is mounted noexec"
    return f"its mode {stat.filemode(info.st_mode)} does not let user {os.geteuid()} execute it"


def _why_format(head: bytes) -> str:
    if head[:4] == b"\x7fELF" and len(head) >= 20:
        order = "<" if head[5] == 1 else ">"
        machine = struct.unpack_from(f"{order}H", head, 18)[0]
        theirs = _MACHINES.get(machine, f"machine {machine}")
        ours = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        if theirs != ours:
            return f"wrong architecture: the program is for {theirs}, this machine is {ours}"
        return "the program is damaged or not for this kernel"
    if not head:
        return "the file is empty"
    return "it is neither an ELF program nor a script with a first line such as #!/bin/sh"
