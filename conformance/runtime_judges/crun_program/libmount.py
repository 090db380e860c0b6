"""What crun's tests use of util-linux's Python binding, which Debian does not package: finding a mount in mountinfo."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Filesystem:
    target: str
    vfs_options: str
    fs_options: str


class Table:
    """The lines of a file in the form of /proc/PID/mountinfo (`man 5 proc`)."""

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8") as file:
            self._mounts = [_mount(line) for line in file if " - " in line]

    def find_target(self, target: str) -> Filesystem | None:
        """Return what is mounted at a path, the topmost."""
        return next((mount for mount in reversed(self._mounts) if mount.target == target), None)


def _mount(line: str) -> Filesystem:
    before, _, after = line.partition(" - ")
    words = before.split()
    return Filesystem(words[4], words[5], after.split()[2])
