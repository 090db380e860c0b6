"""Labels of Linux security modules: what AppArmor and SELinux will hold the next program to.

A label for the next execve(2) is written into a file of procfs (`man 7 apparmor`, `man 8 selinux`; kernel:
Documentation/admin-guide/LSM). It is written through a procfs of our own, since a container's /proc may be made to
swallow it (CVE-2019-16884, CVE-2025-52881).
"""

import os

from kestrel.linux import abi, mounts, syscalls
from kestrel.linux.mounts import opened


def apparmor() -> bool:
    """Say whether AppArmor is in force."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def selinux() -> bool:
    """Say whether SELinux is in force: its filesystem is mounted then."""
    return os.path.exists("/sys/fs/selinux/enforce")


def confine_next(profile: str, label: str) -> None:
    """Have the next program run under an AppArmor profile or an SELinux label; empty ones are left out.

    Raises OSError saying so when that module is not in force: a confinement is not left out silently.
    """
    if profile:
        try:
            _write(("thread-self/attr/apparmor/exec", "thread-self/attr/exec"), f"exec {profile}")
        except OSError as error:
            words = f"AppArmor profile {profile!r} cannot be applied ({error.strerror}): is AppArmor in force here?"
            raise OSError(error.errno, words) from error
    if label:
        try:
            _write(("thread-self/attr/exec",), label)
        except OSError as error:
            words = f"SELinux label {label!r} cannot be applied ({error.strerror}): is SELinux in force here?"
            raise OSError(error.errno, words) from error


def _write(paths: tuple[str, ...], text: str) -> None:
    with opened(mounts.filesystem("proc")) as proc:
        for path in paths:
            try:
                # thread-self is a symbolic link, of the kernel's own making
                fd = syscalls.openat2(proc, path, os.O_WRONLY, abi.RESOLVE_BENEATH | abi.RESOLVE_NO_XDEV)
            except FileNotFoundError:
                continue
            with opened(fd):
                os.write(fd, text.encode())
            return
    raise OSError(95, "this kernel has no place for a label", paths[0])
