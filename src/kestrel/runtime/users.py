"""A container's users: which ids of the host stand behind its own, and the operation that makes files theirs.

A container in a user namespace is built by the host's root, in a mount namespace that belongs to the host, and its
process enters the user namespace last (`process.confine`), before it takes its own rights. So /proc and /sys are
mounted with the host's rights, where a user namespace might be refused them (mount_too_revealing in the kernel's
fs/namespace.c), and device nodes work. A process that may mount gets a copy of the mount namespace then, in which
nothing of ours can be taken away (`man 7 mount_namespaces`, "Restrictions"); to the others it stays the host's. The
network, IPC and UTS namespaces of a sandbox are made in its user namespace, so its root has its rights over them.

Layers and volumes are id-mapped where they are mounted, so nothing is ever changed on disk for it. Files made on the
way belong to the container's root because the maker's filesystem ids are its (`ActAsOwner`).
"""

from __future__ import annotations

import os

from kestrel.base.errors import InvalidArgument
from kestrel.base.values import dataclass, replace
from kestrel.linux import syscalls, user_namespaces
from kestrel.linux.user_namespaces import Range
from kestrel.runtime.options import Options
from kestrel.runtime.place import Operation, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kestrel.linux.user_namespaces import Spare

SAME: tuple[Range, ...] = ((0, 0, 2**32 - 1),)
LIMIT = 340  # lines the kernel takes in a map (`man 7 user_namespaces`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """What ids inside mean outside."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    path: str = ""
    """Of the namespace, when it exists already."""

    def uid(self, inside: int) -> int:
        """Return the host's number of a user. Raises InvalidArgument for one that has none."""
        return _outside(self.uids, inside, "user")

    def gid(self, inside: int) -> int:
        """Return the host's number of a group. Raises InvalidArgument for one that has none."""
        return _outside(self.gids, inside, "group")

    def describe(self) -> str:
        """Say it."""
        words = [f"{inside} to {inside + size - 1} are {outside} and on" for inside, outside, size in self.uids]
        return f"users {', '.join(words)} on the host"

    def to_json(self) -> dict[str, Any]:
        """Return it as it travels between processes."""
        return {"uids": self.uids, "gids": self.gids, "path": self.path}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Ids:
        """Return what `to_json` described."""
        return cls(uids=_triples(given["uids"]), gids=_triples(given["gids"]), path=given["path"])

    def make(self, *, enter: int = 0, spare: Spare | None = None) -> int:
        """Return a descriptor of a user namespace with these maps; the rest as `user_namespaces.make` has it."""
        if self.path:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return user_namespaces.make(self.uids, self.gids, enter=enter, spare=spare)


def _triples(given: Sequence[Sequence[int]]) -> tuple[Range, ...]:
    return tuple((inside, outside, size) for inside, outside, size in given)


def _outside(ranges: tuple[Range, ...], inside: int, what: str) -> int:
    for first, outside, size in ranges:
        if first <= inside < first + size:
            return outside + inside - first
    raise InvalidArgument(
        f"{what} {inside} is in none of the container's ranges", hint="widen linux.uidMappings and gidMappings"
    )


def parse(linux: Mapping[str, Any]) -> Ids | None:
    """Return the ids of a spec's `linux`; None without a user namespace. Raises InvalidArgument.

    A namespace that says nothing of its ids has the same ones inside as outside.
    """
    paths = [entry.get("path") or "" for entry in linux.get("namespaces") or () if entry.get("type") == "user"]
    if not paths:
        return None
    mappings = linux.get("uidMappings") or (), linux.get("gidMappings") or ()
    ids = ranges(*mappings, "linux") if any(mappings) else Ids(uids=SAME, gids=SAME)
    return replace(ids, path=paths[0])


def with_maps(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec whose mappings are those of the user namespace that it joins, if it joins one."""
    linux = spec.get("linux") or {}
    paths = [
        entry["path"] for entry in linux.get("namespaces") or () if entry.get("type") == "user" and entry.get("path")
    ]
    if not paths:
        return dict(spec)
    try:
        fd = os.open(paths[0], os.O_RDONLY | os.O_CLOEXEC)
        try:
            uids, gids = user_namespaces.maps(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise InvalidArgument(f"the user namespace {paths[0]} cannot be joined: {error.strerror}") from error
    names = ("containerID", "hostID", "size")
    found = {
        f"{kind}Mappings": [dict(zip(names, entry, strict=True)) for entry in entries]
        for kind, entries in (("uid", uids), ("gid", gids))
    }
    return {**spec, "linux": {**linux, **found}}


def ranges(uids: Sequence[Mapping[str, Any]], gids: Sequence[Mapping[str, Any]], where: str) -> Ids:
    """Return ids from the spec's form of both mappings; `where` names their owner in errors."""
    return Ids(uids=_ranges(uids, f"{where}.uidMappings"), gids=_ranges(gids, f"{where}.gidMappings"))


def _ranges(entries: Sequence[Mapping[str, Any]], name: str) -> tuple[Range, ...]:
    if not 0 < len(entries) <= LIMIT:
        raise InvalidArgument(f"{name} must have 1 to {LIMIT} entries, it has {len(entries)}")
    found = []
    for entry in entries:
        numbers = (entry.get("containerID"), entry.get("hostID"), entry.get("size"))
        if any(type(number) is not int or not 0 <= number < 2**32 for number in numbers) or not entry["size"]:
            raise InvalidArgument(f"{name}: {dict(entry)} does not have containerID, hostID and a size in numbers")
        found.append((entry["containerID"], entry["hostID"], entry["size"]))
    return tuple(found)


def translated(kind: str, options: Options, ids: Ids | None) -> Options:
    """Return a mount's options with the container's ids in them as the host's, since the host's root mounts it."""
    if ids is None or kind not in ("tmpfs", "devpts"):
        return options
    outside = {"uid": ids.uid, "gid": ids.gid}
    data = tuple(
        (key, str(outside[key](int(value)))) if key in outside and value and value.isdigit() else (key, value)
        for key, value in options.data
    )
    return replace(options, data=data)


@dataclass(frozen=True, slots=True)
class ActAsOwner(Operation):
    """From here on, files that are made belong to the container's root."""

    uid: int
    gid: int

    def describe(self) -> str:
        """Say it."""
        return f"make files as {self.uid}:{self.gid}, the container's root"

    def execute(self, place: Place) -> None:  # noqa: ARG002 - the same for every operation
        """setfsgid(2), setfsuid(2): the latter takes the rights over files away, which are still permitted."""
        syscalls.set_filesystem_ids(self.uid, self.gid)
        _, permitted, inheritable = syscalls.capget()
        syscalls.capset(permitted, permitted, inheritable)


def own(path: str, ids: Ids) -> None:
    """Give the top of an upper directory to the container's root; all else in it is made by its processes."""
    os.chown(path, ids.uid(0), ids.gid(0))
