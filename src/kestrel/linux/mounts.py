"""Mounts by descriptor: made detached, configured, and only then put in place.

A path is looked up once, with openat2(2) confined to a root, and what is found is used as a descriptor from then on:
nothing that runs in a container can swap a component between the check and the use (research/runtime: mount races).
A detached mount is in no namespace's mount table; closing its last descriptor unmounts it, so a crash leaves nothing.

    fd = filesystem("tmpfs", [("size", "64m")], attributes=MOUNT_ATTR_NOSUID)     a new filesystem
    fd = clone("/srv/data", recursive=True)                                     a bind mount, not yet anywhere
    with place(root, "/data", directory=True) as target: attach(fd, target)      into a container
    fd = open_rootfs(plan)                                                      a container's root, for reading by fd
"""

from __future__ import annotations

import errno
import os
import stat

from kestrel.base.values import replace
from kestrel.linux import abi, overlay, syscalls
from kestrel.linux.rootfs import Lower, Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PATH = abi.O_PATH
MAX_LINKS = 40  # symbolic links followed in a path, as the kernel has it (`man 7 path_resolution`)
IN_ROOT = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS


def filesystem(kind: str, options: Iterable[tuple[str, str | None]] = (), *, attributes: int = 0) -> int:
    """Mount a new filesystem, detached, and return its descriptor. An option with value None is a flag."""
    context = syscalls.fsopen(kind)
    try:
        for key, value in options:
            if value is None:
                syscalls.fsconfig(context, abi.FSCONFIG_SET_FLAG, key)
            else:
                syscalls.fsconfig(context, abi.FSCONFIG_SET_STRING, key, value)
        syscalls.fsconfig(context, abi.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def clone(path: str | bytes, *, directory: int = abi.AT_FDCWD, recursive: bool = True, follow: bool = True) -> int:
    """Return a detached copy of the mount at `path` (a bind mount without a place yet).

    With an empty `path` the mount behind the descriptor `directory` is copied. Not to `follow` means that a symbolic
    link at the end of the path is what is mounted.
    """
    flags = abi.OPEN_TREE_CLONE | (abi.AT_RECURSIVE if recursive else 0) | (0 if path else abi.AT_EMPTY_PATH)
    flags |= 0 if follow else abi.AT_SYMLINK_NOFOLLOW
    return syscalls.open_tree(directory, path, flags)


def set_attributes(fd: int, *, add: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """Change the flags or the propagation of the mount behind `fd` (`man 2 mount_setattr`)."""
    flags = abi.AT_EMPTY_PATH | (abi.AT_RECURSIVE if recursive else 0)
    syscalls.mount_setattr(fd, "", flags, add=add, clear=clear, propagation=propagation)


def map_ids(fd: int, user_namespace: int, *, recursive: bool = False) -> None:
    """Show the files of a detached mount as owned by whom the maps of a user namespace say (`man 2 mount_setattr`)."""
    flags = abi.AT_EMPTY_PATH | (abi.AT_RECURSIVE if recursive else 0)
    syscalls.mount_setattr(fd, "", flags, add=abi.MOUNT_ATTR_IDMAP, userns=user_namespace)


def attach(mount: int, target: int, *, name: str | None = None) -> None:
    """Put the detached mount onto the place behind the descriptor `target`; `name` is for the error's text."""
    syscalls.move_mount(mount, target, subject=name)


def open_in_root(root: int, path: str | bytes, flags: int = PATH, *, resolve: int = 0, mode: int = 0) -> int:
    """Open `path` as a process whose root is `root` would, symbolic links included; never outside of it."""
    return syscalls.openat2(root, path, flags, IN_ROOT | resolve, mode)


def make_directories(root: int, path: str, *, mode: int = 0o755) -> int:
    """Create the directories of `path` that are missing inside `root`; return the last one as a descriptor.

    Components may be symbolic links, which resolve inside the root; what a dangling one names is made.
    """
    parts = _parts(path)
    # Most often everything exists: one call.
    try:
        return open_in_root(root, "/".join(parts) or ".", PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    # Walk textually from the root, so that ".." and links keep their meaning at every step, and create by descriptor.
    walked, links = "", 0
    current = open_in_root(root, ".", PATH | os.O_DIRECTORY)
    try:
        while parts:
            part, *parts = parts
            try:
                following = open_in_root(root, f"{walked}/{part}", PATH | os.O_DIRECTORY)
                walked = f"{walked}/{part}"
            except FileNotFoundError:
                link = _make_directory(current, part, mode)
                parts = [*_parts(link), *parts]
                links += bool(link)
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                if link and not link.startswith("/"):
                    continue
                walked = "" if link else f"{walked}/{part}"
                following = open_in_root(root, ".", PATH | os.O_DIRECTORY) if link else _own(current, part)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current


def _own(parent: int, name: str) -> int:
    """Open a directory that was just made, and nothing else that may have taken its place."""
    return syscalls.openat2(parent, name, PATH | os.O_DIRECTORY, abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_BENEATH)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _make_directory(parent: int, name: str, mode: int) -> str:
    """Make a directory; return what it is a link to when it is a link that names nothing, otherwise nothing."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return _link(parent, name)
    return ""


def _link(parent: int, name: str) -> str:
    """Return what a name that was taken is a link to, nothing when it is none: somebody else made it just now.

    What two containers share (a volume, a cache of builds) is where both make the places of their mounts.
    """
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return ""


def make_file(root: int, path: str, *, mode: int = 0o644, links: int = 0) -> int:
    """Return a descriptor of the file at `path` inside `root`, made empty when absent (as a place for a bind)."""
    try:
        return open_in_root(root, path)
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    directory = make_directories(root, parent)
    link = ""
    try:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, mode, dir_fd=directory))
        except FileExistsError:
            link = _link(directory, name)
        if not link:
            return syscalls.openat2(directory, name, PATH, abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_BENEATH)
        if links == MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return make_file(root, link if link.startswith("/") else f"{parent}/{link}", mode=mode, links=links + 1)
    finally:
        os.close(directory)


def make_entry(root: int, path: str) -> int:
    """Return a descriptor of what has this name, be it a symbolic link; made as an empty file when absent."""
    parent, _, name = path.rstrip("/").rpartition("/")
    with opened(make_directories(root, parent)) as directory:
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory))
        except FileExistsError:
            pass
        return os.open(name, PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def make_link(root: int, path: str, target: str) -> None:
    """Make a symbolic link inside `root`; one that is there already and says the same is fine."""
    parent, _, name = path.rstrip("/").rpartition("/")
    with opened(make_directories(root, parent)) as directory:
        try:
            os.symlink(target, name, dir_fd=directory)
        except FileExistsError:
            if os.readlink(name, dir_fd=directory) != target:
                raise


class opened:  # noqa: N801 - reads as a statement: `with opened(...) as fd`
    """Close a descriptor at the end of a block. contextlib would be an import the container's init cannot afford."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def is_directory(fd: int) -> bool:
    """Say whether a descriptor (also one of O_PATH) is of a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def pivot(root: int) -> None:
    """Make the mount behind `root` the root of this mount namespace, and drop the old root.

    `root` must be attached. pivot_root(".", ".") stacks the old root on the new one, from where it is detached:
    no directory for it is needed in the new root (`man 2 pivot_root`, NOTES).
    """
    os.fchdir(root)
    syscalls.pivot_root(".", ".")
    # The old root is on top now: take it away before anything looks up "/".
    syscalls.umount(".", abi.MNT_DETACH)
    os.chdir("/")


def cover(root: int) -> None:
    """Move the mount behind `root` over "/" and make it this process's root; the old one stays below, out of reach.

    For hosts that run from a ramdisk, whose root cannot be pivoted away (`man 2 pivot_root`, NOTES). The kernel's own
    filesystems of the host go first: as long as a whole /proc is anywhere in the mount namespace, whoever makes a user
    namespace in it may mount another one, with nothing masked (mount_too_revealing in fs/namespace.c).
    """
    for place in _kernel_mounts(outside=os.readlink(f"/proc/self/fd/{root}")):
        try:
            syscalls.umount(place, abi.MNT_DETACH)
        except OSError:  # one that this namespace was given locked
            syscalls.mount("tmpfs", place, "tmpfs", abi.MS_RDONLY)
    with opened(os.open("/", PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as slash:
        attach(root, slash, name="/")
    chroot(root)


def _kernel_mounts(*, outside: str) -> list[str]:
    """Return where proc and sysfs are mounted but not below `outside`, the deepest first (`man 5 proc`, mountinfo)."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            place, kind = line.split(" ")[4], line.partition(" - ")[2].split(" ")[0]
            for escape, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
                place = place.replace(escape, character)
            if kind in ("proc", "sysfs") and not f"{place}/".startswith(f"{outside}/"):
                found.append(place)
    return sorted(found, reverse=True)


def chroot(root: int) -> None:
    """Make the mount behind `root` this process's root; it may be one that is attached nowhere."""
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")


# --- root filesystems ------------------------------------------------------------------------------------------------


def open_rootfs(plan: Rootfs, *, attributes: int = 0, user_namespace: int = -1) -> int:
    """Mount a root filesystem as planned, detached, and return a descriptor of its top directory.

    The descriptor is an O_PATH one: it works with openat(2) and the `dir_fd` arguments of `os`, and
    `os.open(".", os.O_RDONLY, dir_fd=fd)` gives one that can be listed. Closing it unmounts. Layers reach overlay
    by descriptor (`lowerdir+` with FSCONFIG_SET_FD) where the kernel can do that, and otherwise by short names
    (`overlay.py`), so there is no limit from option length. Raises OSError naming the layer or option that was refused.

    With `user_namespace` the layers are id-mapped by it. The upper directory never is: the kernel could not write to
    overlay's own directories through it, and makes the mount read-only without a word; it has to belong to the range.
    """
    if not plan.upper and len(plan.lowers) == 1:
        return _single(plan.lowers[0], attributes, user_namespace)
    layers = []
    try:
        for lower in plan.lowers:
            fd = _mapped(lower, user_namespace) if user_namespace >= 0 else open_layer(lower)
            layers.append(fd)  # not a comprehension: what was opened before a failure must be closed
        return _overlay(plan, layers, attributes)
    finally:
        for fd in layers:
            os.close(fd)


def _single(lower: Lower, attributes: int, user_namespace: int) -> int:
    """One layer and no place to write: overlay would refuse a single lower, and none is needed."""
    if user_namespace >= 0:
        fd = _mapped(lower, user_namespace)
    else:
        with opened(open_layer(lower)) as layer:
            fd = clone("", directory=layer, recursive=False)
    set_attributes(fd, add=attributes | abi.MOUNT_ATTR_RDONLY)
    return fd


def _mapped(lower: Lower, user_namespace: int) -> int:
    """Return a mount of a layer of its own, id-mapped."""
    try:
        with opened(open_layer(lower)) as layer:
            fd = clone("", directory=layer, recursive=False)
    except OSError:
        if not lower.mounted:
            raise
        # What another process holds is in no mount namespace, and cannot be copied before Linux 6.15.
        fd = open_layer(replace(lower, mounted=""))
    try:
        map_ids(fd, user_namespace)
    except OSError as error:
        os.close(fd)
        reason = "the filesystem it is on cannot be id-mapped" if error.errno == errno.EINVAL else error.strerror
        raise OSError(error.errno, f"{reason}, which a user namespace needs", lower.path) from error
    return fd


def open_layer(lower: Lower) -> int:
    """Return a descriptor of a layer's top directory: of the mount another process holds, or of a new one."""
    if lower.kind == "erofs":
        if lower.mounted:
            fd = _held(lower)
            if fd >= 0:
                return fd
        options: list[tuple[str, str | None]] = [("source", lower.path)]
        if lower.data:
            options.append(("device", lower.data))
        return filesystem("erofs", options, attributes=abi.MOUNT_ATTR_RDONLY)
    if lower.kind != "directory":
        raise OSError(errno.EINVAL, f"unknown kind of layer {lower.kind!r}", lower.path)
    return os.open(lower.path, PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _held(lower: Lower) -> int:
    """Open the mount that another process holds; -1 when that is gone, or something else has its number now."""
    try:
        fd = os.open(lower.mounted, PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    if os.fstat(fd).st_dev == lower.device and syscalls.filesystem_type(fd) == abi.EROFS_SUPER_MAGIC:
        return fd
    os.close(fd)
    return -1


def _overlay(plan: Rootfs, layers: list[int], attributes: int) -> int:
    try:
        return _overlay_by_descriptor(plan, layers, attributes)
    except OSError as error:
        # A mount that others use as well is not ours to put anywhere.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP) or any(lower.mounted for lower in plan.lowers):
            raise
    # An older kernel; or something is wrong, and then this says so again.
    paths = [lower.path for lower in plan.lowers]
    return overlay.mount(list(zip(paths, layers, strict=True)), plan.upper, plan.work, attributes)


def _overlay_by_descriptor(plan: Rootfs, layers: list[int], attributes: int) -> int:
    context = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig(context, abi.FSCONFIG_SET_STRING, "source", "overlay")
        for fd in layers:
            syscalls.fsconfig(context, abi.FSCONFIG_SET_FD, "lowerdir+", None, fd)
        if plan.upper:
            _set_directory(context, "upperdir", plan.upper)
            _set_directory(context, "workdir", plan.work)
        syscalls.fsconfig(context, abi.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def _set_directory(context: int, key: str, path: str) -> None:
    with opened(os.open(path, PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        syscalls.fsconfig(context, abi.FSCONFIG_SET_FD, key, None, fd)
