"""Control files and directories: reading, writing, walking and removing them, the same for both versions."""

from __future__ import annotations

import errno
import os

from kestrel.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def write(path: str, value: str) -> None:
    """Write a control file; a refusal names the file and the value."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, f"write {value.strip()!r}: {error.strerror}", path) from None


def read(path: str) -> str:
    """Read a control file whole; empty when it does not exist."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError as error:
        if error.errno == errno.ENODEV:  # the group went away while we read
            return ""
        raise
    finally:
        os.close(fd)


def exists(path: str) -> bool:
    """Say whether there is a file or directory. Raises OSError when it cannot be found out, unlike os.path.exists."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def number(text: str) -> int | None:
    """Return the number a one-number file holds; None for `max`, an absent file, or version 1's "no limit"."""
    text = text.strip()
    if not text.isdigit():
        return None
    value = int(text)
    return None if value >= 0x7FFFFFFFFFFFF000 else value


def table(text: str) -> dict[str, int]:
    """Return a flat keyed file (`memory.stat`, `cpu.stat`, `memory.events`) as a dict."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def send_kill(pids: Sequence[int]) -> None:
    """SIGKILL each; one that is gone is fine."""
    for pid in pids:
        try:
            os.kill(pid, signals.SIGKILL)
        except ProcessLookupError:
            pass


def tree(top: str) -> list[str]:
    """Return `top` and every directory below it, children first; empty when it does not exist."""
    found = []
    try:
        with os.scandir(top) as entries:
            names = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        found += tree(name)
    return [*found, top]


def remove_tree(top: str) -> None:
    """rmdir a group and those below it."""
    try:
        os.rmdir(top)  # most often it has no children
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    for directory in tree(top):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass


def checked(path: str) -> str:
    """Return a group's path without its leading slash. Raises ValueError for one that would leave the hierarchy."""
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in (".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a path of a cgroup")
    return "/".join(parts)
