"""Turns the upper directory of a finished snapshot into a layer where it stands.

Afterwards it is what unpacking the tar that `archive.diff` wrote of it would have made: the same owners and times, no
sockets, and of overlayfs' own xattrs only the opaque mark. That way an image built here and the same image pulled
elsewhere look alike to a container, and building costs no unpacking.
"""

import os
import stat
from typing import Final

from kestrel.archive.apply import OPAQUE_XATTR
from kestrel.archive.reproducible import clamped
from kestrel.archive.shift import ACLS, CAPABILITY, inside, inside_xattr

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def freeze(upper: "str | os.PathLike[str]", *, clamp: int | None = None, users: range = range(0)) -> int:
    """Normalise the tree; returns the bytes of its files, an inode of several names counted once.

    What belongs to `users` of the host belongs afterwards to those of the container that they were (`archive.shift`).
    """
    top = os.open(upper, _DIRECTORY)
    try:
        size = _directory(top, clamp, users, set())
        _strip(top)
        os.fchown(top, 0, 0)
        os.fchmod(top, 0o755)
    finally:
        os.close(top)
    return size


def _directory(fd: int, clamp: int | None, users: range, seen: set[int]) -> int:
    size = 0
    for name in os.listdir(fd):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            os.unlink(name, dir_fd=fd)
            continue
        if stat.S_ISDIR(status.st_mode):
            child = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                size += _directory(child, clamp, users, seen)
                _own(child, status, users)
                _strip(child)
            finally:
                os.close(child)
        elif status.st_ino not in seen:
            seen.add(status.st_ino)
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
            _own(f"/proc/self/fd/{fd}/{name}", status, users)
            _strip(f"/proc/self/fd/{fd}/{name}")
        mtime = clamped(status.st_mtime_ns, clamp)
        os.utime(name, ns=(mtime, mtime), dir_fd=fd, follow_symlinks=False)
    return size


def _own(target: "int | str", status: os.stat_result, users: range) -> None:
    """Give a file to whom it belongs; what chown(2) takes away with that, setuid bits and capabilities, comes back."""
    if status.st_uid not in users and status.st_gid not in users:
        return
    follow = isinstance(target, int)
    kept = {name: os.getxattr(target, name, follow_symlinks=follow) for name in (*ACLS, CAPABILITY)
            if name in os.listxattr(target, follow_symlinks=follow)}  # fmt: skip
    os.chown(target, inside(status.st_uid, users), inside(status.st_gid, users), follow_symlinks=follow)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for name, value in kept.items():
        os.setxattr(target, name, inside_xattr(name, value, users), follow_symlinks=follow)


def _strip(target: "int | str") -> None:
    """Remove what overlayfs noted for itself about where the file came from (overlayfs.rst, "Inode properties")."""
    follow = isinstance(target, int)
    for name in os.listxattr(target, follow_symlinks=follow):
        if name.startswith("trusted.overlay.") and name != OPAQUE_XATTR:
            os.removexattr(target, name, follow_symlinks=follow)
