"""Places to mount something on. Those made only for that are no part of what a RUN did, and go before the commit.

A runtime creates missing mount points in the writable layer: an empty /etc/resolv.conf, /run/secrets, the target of
a cache. Whatever was absent before the command, is empty after it, and was asked for as a place, is taken away.
"""

import os
import posixpath
import stat
from collections.abc import Iterable

from kestrel.archive.shift import inside
from kestrel.base.errors import InvalidArgument
from kestrel.build.executor import RunMount
from kestrel.linux import mounts
from kestrel.linux.rootfs import Rootfs

ENGINE_PLACES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys", "/dev/shm", "/dev/pts")


def check(lower: Rootfs, wanted: Iterable[RunMount]) -> None:
    """Make sure that each mount finds a place of its kind in the image, or none. Raises InvalidArgument."""
    wanted = list(wanted)
    if not wanted or not lower.lowers:
        return
    with mounts.opened(mounts.open_rootfs(Rootfs(lowers=lower.lowers))) as root:
        for each in wanted:
            if not any(each.target.startswith(f"{other.target}/") for other in wanted):
                _check(root, each)


def _check(root: int, mount: RunMount) -> None:
    try:
        with mounts.opened(mounts.open_in_root(root, mount.target)) as fd:
            there = mounts.is_directory(fd)
    except NotADirectoryError:
        sentence = f"`{mount.target}` cannot be mounted on: what it would be in is a file of the image"
        raise InvalidArgument(sentence, hint="choose another target") from None
    except OSError:
        return
    if there != _shows_directory(mount):
        kinds = ("a directory", "a file") if there else ("a file", "a directory")
        raise InvalidArgument(
            f"`{mount.target}` is {kinds[0]} of the image, and {kinds[1]} cannot be mounted on it",
            hint="choose another target or source",
        )


def _shows_directory(mount: RunMount) -> bool:
    if mount.kind == "tmpfs":
        return True
    if mount.rootfs is None:
        return os.path.isdir(mount.source)
    with mounts.opened(mounts.open_rootfs(mount.rootfs)) as root:
        status = _status(root, mount.source or ".")
    return status is not None and stat.S_ISDIR(status.st_mode)


def absent(lower: Rootfs, targets: Iterable[str]) -> tuple[str, ...]:
    """Return the paths, parents included, that mounting would have to create; parents before what is in them."""
    wanted = {path for target in (*targets, *ENGINE_PLACES) for path in _upwards(target)}
    if not lower.lowers:
        return tuple(sorted(wanted))
    with mounts.opened(mounts.open_rootfs(Rootfs(lowers=lower.lowers))) as root:
        return tuple(path for path in sorted(wanted) if not _exists(root, path))


def remove(rootfs: Rootfs, places: tuple[str, ...], users: range) -> None:
    """Take the empty ones of `places` out of the writable layer, and copies of their parents that say nothing new.

    `users` are the host's numbers of the users that wrote it (`archive.shift`).
    """
    upper = os.open(rootfs.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in reversed(places):
            _remove_empty(upper, path)
        parents = sorted({posixpath.dirname(path) for path in places} - {"/", *places})
        for path in reversed(parents):
            if _only_copied_up(rootfs, upper, path, users):
                _remove_empty(upper, path)
    finally:
        os.close(upper)


def _upwards(path: str) -> list[str]:
    found = []
    while path not in ("", "/"):
        found.append(path)
        path = posixpath.dirname(path)
    return found


def _exists(root: int, path: str) -> bool:
    return _status(root, path) is not None


def _status(root: int, path: str) -> os.stat_result | None:
    try:
        with mounts.opened(mounts.open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)) as fd:
            return os.fstat(fd)
    except OSError:
        return None


def _remove_empty(upper: int, path: str) -> None:
    status = _status(upper, path)
    if status is None:
        return
    parent, name = posixpath.split(path)
    try:
        with mounts.opened(mounts.open_in_root(upper, parent, os.O_PATH | os.O_DIRECTORY)) as fd:
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=fd)
            elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                os.unlink(name, dir_fd=fd)
    except OSError:
        pass  # not empty: the command has put something there, and it stays


def _only_copied_up(rootfs: Rootfs, upper: int, path: str, users: range) -> bool:
    """Tell whether a directory of the layer only repeats what is below it."""
    above = _status(upper, path)
    if above is None or not stat.S_ISDIR(above.st_mode) or _hides(upper, path):
        return False
    with mounts.opened(mounts.open_rootfs(Rootfs(lowers=rootfs.lowers))) as root:
        below = _status(root, path)
    if below is None:
        return False
    owner = (inside(above.st_uid, users), inside(above.st_gid, users))
    return (above.st_mode, *owner) == (below.st_mode, below.st_uid, below.st_gid)


def _hides(upper: int, path: str) -> bool:
    """Tell whether a directory hides the one below it (Documentation/filesystems/overlayfs.rst, "whiteouts")."""
    with mounts.opened(mounts.open_in_root(upper, path, os.O_RDONLY | os.O_DIRECTORY)) as fd:
        return "trusted.overlay.opaque" in os.listxattr(fd)
