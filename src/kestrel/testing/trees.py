"""Directory trees: made at random, and as data, to compare what two ways of making one left."""

import hashlib
import os
import random
import stat
from pathlib import Path

from kestrel.linux.mounts import opened

_SECOND = 1_000_000_000


def listing(
    root: "Path | int", *, times: bool = True, overlay: bool = False, top: bool = False
) -> dict[str, tuple[object, ...]]:
    """Describe a tree: type, mode, owner, time, content, hard links, xattrs of each path.

    A hard link is told by the first name of its inode, content by its digest, holes not at all. `root` is a path or
    a descriptor. With `overlay`, overlayfs' own xattrs count too; with `top` the root itself, under the empty name.
    """
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}

    def describe(fd: int, name: str, path: str) -> int:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        where = f"/proc/self/fd/{fd}/{name}"
        hidden = ("security.selinux",) if overlay else ("security.selinux", "trusted.overlay.")
        xattrs = {
            key: os.getxattr(where, key, follow_symlinks=False)
            for key in os.listxattr(where, follow_symlinks=False)
            if not key.startswith(hidden)
        }
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if kind == stat.S_IFREG:
            with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd), "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        elif kind == stat.S_IFLNK:
            content = os.readlink(name, dir_fd=fd)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = status.st_rdev
        link = first.setdefault(status.st_ino, path) if kind != stat.S_IFDIR else path
        links = status.st_nlink if kind != stat.S_IFDIR else 0
        mtime = status.st_mtime_ns if times else 0
        found[path] = (status.st_mode, status.st_uid, status.st_gid, mtime, content, link, links, xattrs)
        return kind

    def walk(fd: int, prefix: str) -> None:
        for name in sorted(os.listdir(fd)):
            if describe(fd, name, prefix + name) == stat.S_IFDIR:
                with opened(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)) as child:
                    walk(child, prefix + name + "/")

    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with opened(os.open(".", flags, dir_fd=root) if isinstance(root, int) else os.open(root, flags)) as start:
        if top:
            describe(start, ".", "")
        walk(start, "")
    return found


def make_tree(root: Path, chooser: random.Random) -> None:
    """Fill a directory with one of everything, at random."""
    places, files = [root], list[Path]()
    for number in range(chooser.randint(1, 25)):
        parent = chooser.choice(places)
        name = chooser.choice(
            ["f", ".hidden", "sp ace", "é", "x" * 120, b"\xff\xfe".decode("utf-8", "surrogateescape")]
        )
        path = parent / f"{name}{number}"
        kind = chooser.choice(["file", "file", "dir", "symlink", "hardlink", "fifo", "device", "sparse"])
        if kind == "dir":
            path.mkdir()
            places.append(path)
        elif kind == "symlink":
            path.symlink_to(chooser.choice(["/etc/passwd", "..", "t" * 150, "f0"]))
        elif kind == "hardlink" and files:
            os.link(chooser.choice(files), path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, chooser.randint(3, 9)))
        elif kind == "sparse":
            with path.open("wb") as file:
                file.truncate(chooser.randint(1, 3) * 100_000)
                for _ in range(chooser.randint(0, 8)):
                    file.seek(chooser.randint(0, 90_000))
                    file.write(b"data")
            files.append(path)
        else:
            path.write_bytes(chooser.randbytes(chooser.choice([0, 1, 511, 512, 513, 5000])))
            files.append(path)
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink():
            if path.is_file() and chooser.random() < 0.3:
                os.setxattr(path, "user.note", chooser.randbytes(chooser.randint(0, 30)))
            os.chown(path, chooser.choice([0, 1000, 3_000_000]), chooser.choice([0, 70_000]))
            path.chmod(chooser.choice([0o644, 0o755, 0o4711, 0o1777, 0o000]))
        os.utime(path, ns=(0, chooser.randint(0, 2**33) * _SECOND), follow_symlinks=False)
