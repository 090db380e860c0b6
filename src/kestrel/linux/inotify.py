"""Being told that files changed (`man 7 inotify`): one descriptor, many watches, events as values.

The caller waits on `fileno()` with whatever loop it has and then calls `read()`, which never blocks. Watches are on
inodes: a file that is renamed keeps its watch, which is why log followers watch the directory and not the file.
"""

import ctypes
import os
import struct

from kestrel.base.values import dataclass

IN_MODIFY = 0x00000002
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000

_EVENT = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened: `watch` is the number `add` gave (-1 for an overflow), `name` the entry of a directory."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One inotify instance. Raises OSError where the kernel does (EMFILE: the user's instance limit)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1", "")

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def add(self, path: str, mask: int) -> int:
        """Watch `path`; the same inode added twice gives the same number."""
        done = self._libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask))
        return self._checked(done, "inotify_add_watch", path)

    def remove(self, watch: int) -> None:
        """Stop watching; a watch that the kernel already dropped (directory deleted) is no error."""
        self._libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[Event]:
        """Return what has happened since the last call, without waiting."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        events = []
        offset = 0
        while offset < len(data):
            watch, mask, _cookie, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = data[offset : offset + length].rstrip(b"\0")
            events.append(Event(watch, mask, os.fsdecode(name)))
            offset += length
        return events

    def close(self) -> None:
        """Give the descriptor back; every watch ends with it."""
        os.close(self._fd)

    def _checked(self, result: int, call: str, path: str) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{call}: {os.strerror(number)}", path)
        return result
