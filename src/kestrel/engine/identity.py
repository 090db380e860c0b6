"""Who a container's process is: docker's `--user` words against the image's own /etc/passwd and /etc/group.

The files are a stranger's. They are opened beneath the image's root by descriptor, read up to a bound, and numbers
are taken strictly: CVE-2016-3697 (a user *named* like a number), CVE-2024-40635 (numbers that wrap) and
CVE-2022-2989 (a process without its primary group) are what happens otherwise.
"""

import os
from dataclasses import dataclass

from kestrel.base.errors import InvalidArgument
from kestrel.linux.mounts import open_in_root

LIMIT = 4 * 1024 * 1024  # bytes of passwd or group that are read
MAX_ID = 2**32 - 2  # 2^32-1 is (uid_t)-1, which system calls read as "leave it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Numbers for the kernel, and the home directory for $HOME."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(root: int, user: str, extra_groups: tuple[int, ...] = ()) -> Identity:
    """Return the identity that `user` (`name|uid[:group|gid]`, empty for root) is in the image open at `root`.

    A number needs no entry; a name does. Raises InvalidArgument that names what is missing.
    """
    name, _, group = user.partition(":")
    if ":" in group or (user and not name):
        raise InvalidArgument(f"invalid user {user!r}", hint="write USER, UID, USER:GROUP or UID:GID")
    users = [fields for fields in _records(root, "etc/passwd") if len(fields) >= 6]
    groups = [fields for fields in _records(root, "etc/group") if len(fields) >= 4]
    uid, gid, home, login = _user(name or "0", users)
    if group:
        gid = _group(group, groups)
        member_of: set[int] = set()
    else:
        # A number without an entry has no name, and is no member of groups whose list of members is empty.
        members = [f for f in groups if login and login in f[3].split(",")]
        member_of = {number for f in members if (number := _number(f[2])) is not None}
    supplementary = tuple(sorted({gid, *member_of, *extra_groups}))
    return Identity(uid=uid, gid=gid, groups=supplementary, home=home)


def _user(name: str, users: list[list[str]]) -> tuple[int, int, str, str]:
    number = _number(name)
    for fields in users:
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if (number is None and fields[0] == name) or (number is not None and uid == number):
            return uid, gid, fields[5] or "/", fields[0]
    if number is None:
        raise InvalidArgument(
            f"unable to find user {name}: no matching entries in passwd file",
            hint="the image has no such user; give a number, or add it in the Dockerfile",
        )
    return number, 0, "/root" if number == 0 else "/", ""


def _group(name: str, groups: list[list[str]]) -> int:
    number = _number(name)
    if number is not None:
        return number
    for fields in groups:
        gid = _number(fields[2])
        if fields[0] == name and gid is not None:
            return gid
    raise InvalidArgument(f"unable to find group {name}: no matching entries in group file")


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    if number > MAX_ID:
        raise InvalidArgument(f"user or group number {text[:20]} is out of range", hint=f"the largest is {MAX_ID}")
    return number


def _records(root: int, path: str) -> list[list[str]]:
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []  # an image from scratch has no passwd; numbers still work
    with open(fd, "rb") as file:
        text = file.read(LIMIT).decode(errors="replace")
    return [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
