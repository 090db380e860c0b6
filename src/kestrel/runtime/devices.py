"""The operations that fill /dev: nodes, links, and the container's terminal."""

import errno
import fcntl
import os
import stat
import struct

from kestrel.base.errors import InvalidArgument
from kestrel.base.values import dataclass
from kestrel.linux import abi, mounts, syscalls
from kestrel.linux.mounts import opened
from kestrel.runtime.place import Operation, Place


@dataclass(frozen=True, slots=True)
class MakeDevice(Operation):
    """Make a device node. Only a default one replaces what the image has there (config-linux.md, "Devices")."""

    path: str
    kind: str
    major: int = 0
    minor: int = 0
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    default: bool = False

    def describe(self) -> str:
        """Say it."""
        return f"make device {self.path} ({self.kind} {self.major}:{self.minor})"

    def execute(self, place: Place) -> None:
        """mknod(2) relative to a directory that was opened without following links (CVE-2026-41579)."""
        parent, _, name = self.path.rstrip("/").rpartition("/")
        os.close(mounts.make_directories(place.root, parent))
        flags, resolve = mounts.PATH | os.O_DIRECTORY, abi.RESOLVE_NO_SYMLINKS
        with opened(mounts.open_in_root(place.root, parent.lstrip("/") or ".", flags, resolve=resolve)) as directory:
            if self._make(name, directory) and (self.uid or self.gid):
                os.chown(name, self.uid, self.gid, dir_fd=directory, follow_symlinks=False)

    def _make(self, name: str, directory: int) -> bool:
        """Say whether it was made: one that is there already, perhaps the host's own, stays as it is."""
        bits = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[self.kind]
        number = 0 if self.kind == "p" else os.makedev(self.major, self.minor)
        try:
            os.mknod(name, bits | self.mode, number, dir_fd=directory)
        except FileExistsError:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) == (bits, number):
                return False
            if not self.default:
                raise InvalidArgument(
                    f"cannot make device {self.path} ({self.kind} {self.major}:{self.minor}): something else is there",
                    hint=f"remove {self.path} from the image or the mounts, or the device from linux.devices",
                ) from None
            os.unlink(name, dir_fd=directory)
            os.mknod(name, bits | self.mode, number, dir_fd=directory)
        return True


@dataclass(frozen=True, slots=True)
class LinkDevices(Operation):
    """The symbolic links of /dev that the spec requires (runtime-linux.md, "Dev symbolic links")."""

    ptmx: bool

    def describe(self) -> str:
        """Say it."""
        return "link /dev/fd, /dev/stdin, /dev/stdout, /dev/stderr" + (" and /dev/ptmx" if self.ptmx else "")

    def execute(self, place: Place) -> None:
        """Make those that are missing."""
        links = {"fd": "/proc/self/fd", **{f"std{n}": f"/proc/self/fd/{i}" for i, n in enumerate(("in", "out", "err"))}}
        if self.ptmx:
            links["ptmx"] = "pts/ptmx"
        flags, resolve = mounts.PATH | os.O_DIRECTORY, abi.RESOLVE_NO_SYMLINKS
        with opened(mounts.open_in_root(place.root, "dev", flags, resolve=resolve)) as directory:
            for name, target in links.items():
                try:
                    os.symlink(target, name, dir_fd=directory)
                except FileExistsError:
                    pass


@dataclass(frozen=True, slots=True)
class OpenConsole(Operation):
    """Make the container's terminal in its own devpts and show it as /dev/console."""

    width: int = 0
    height: int = 0
    uid: int = 0

    def describe(self) -> str:
        """Say it."""
        return "open a terminal and bind it at /dev/console"

    def execute(self, place: Place) -> None:
        """The other end comes from TIOCGPTPEER and not from a path somebody could swap (CVE-2025-52565)."""
        place.console, place.terminal = open_terminal(place.root, self.width, self.height)
        os.fchown(place.terminal, self.uid, -1)
        with (
            opened(mounts.make_file(place.root, "/dev/console")) as target,
            opened(mounts.clone("", directory=place.terminal, recursive=False)) as mount,
        ):
            mounts.attach(mount, target, name="/dev/console")


def open_terminal(root: int, width: int = 0, height: int = 0) -> tuple[int, int]:
    """Return both ends of a new pseudo-terminal of the devpts at dev/pts below `root`: master, then the program's."""
    flags = os.O_RDWR | os.O_NOCTTY
    master = mounts.open_in_root(root, "dev/pts/ptmx", flags, resolve=abi.RESOLVE_NO_SYMLINKS)
    try:
        if syscalls.filesystem_type(master) != abi.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "is not a devpts filesystem", "/dev/pts")
        fcntl.ioctl(master, abi.TIOCSPTLCK, struct.pack("i", 0))
        peer: int = fcntl.ioctl(master, abi.TIOCGPTPEER, flags | os.O_CLOEXEC)
        if width and height:
            fcntl.ioctl(master, abi.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    except BaseException:
        os.close(master)
        raise
    return master, peer
