"""What init does to build a container's filesystem, step by step, as values.

Each operation (`place.Operation`) is frozen data. All of them go by descriptor: `place.root` is the container's root,
attached but not yet entered; a path in it is looked up once with openat2(2) confined to that root, and the descriptor
found is what is mounted on (mount races: CVE-2021-30465, CVE-2024-45310).
"""

import errno
import os
import stat

from kestrel.base.errors import InvalidArgument
from kestrel.base.values import dataclass, field
from kestrel.linux import abi, mounts, syscalls
from kestrel.linux.mounts import opened
from kestrel.linux.rootfs import Rootfs
from kestrel.runtime import users
from kestrel.runtime.options import Options, describe
from kestrel.runtime.place import Cover, Operation, Place
from kestrel.runtime.users import Ids

# What may be mounted over below /proc: files that lxcfs-like filesystems serve per container. Anything else there
# could be made to lie to us about the process (CVE-2019-16884, CVE-2025-52881).
PROC_OVERLAYS = frozenset(
    f"/proc/{name}"
    for name in "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo net/dev sys/kernel/ns_last_pid".split()
)


ROOT = -1
"""The index of the root among the sources."""


@dataclass(frozen=True, slots=True)
class TakeSource(Operation):
    """Copy the source of a bind mount, or the root, while the host's mounts and their peers are still as they were."""

    index: int
    path: str
    recursive: bool
    idmap: str = ""
    ids: "Ids | None" = None
    link: bool = False

    def describe(self) -> str:
        """Say it."""
        return f"take {self.path} from the host" + (f", {self.ids.describe()}" if self.ids and self.idmap else "")

    def execute(self, place: Place) -> None:
        """open_tree(2) with a clone; only one that is not attached anywhere can be id-mapped."""
        try:
            source = mounts.clone(self.path, recursive=self.recursive, follow=not self.link)
        except FileNotFoundError:
            raise InvalidArgument(
                f"bind source path does not exist: {self.path}", hint="create it first, or check the spelling"
            ) from None
        place.sources[self.index] = source
        if not self.idmap:
            return
        namespace = self.ids.make() if self.ids is not None else os.dup(place.user_namespace)
        with opened(namespace):
            try:
                mounts.map_ids(source, namespace, recursive=self.idmap == "ridmap")
            except OSError as error:
                raise InvalidArgument(
                    f"{self.path} cannot be id-mapped: {error.strerror}",
                    hint="its filesystem may not support that; without `idmap` its files keep the host's owners",
                ) from error


@dataclass(frozen=True, slots=True)
class OwnMounts(Operation):
    """Take this namespace's mounts out of their peer groups: nothing done from here on reaches the host.

    In a mount namespace that is not the container's own nothing is changed.
    """

    own: bool = True

    def describe(self) -> str:
        """Say it."""
        return "detach the mount namespace from the host's" if self.own else "leave the mount namespace as it is"

    def execute(self, place: Place) -> None:
        """Make everything private, and keep what the later steps need of the host."""
        null = mounts.clone("/dev/null", recursive=False)
        place.null = Cover(null)
        if os.fstat(null).st_rdev != os.makedev(1, 3):
            raise OSError(errno.ENODEV, "is not the null device", "/dev/null")
        if self.own:
            syscalls.mount(None, "/", None, abi.MS_REC | abi.MS_PRIVATE)


@dataclass(frozen=True, slots=True)
class MountRoot(Operation):
    """Mount the root filesystem: a plan of layers, or a directory of the host (the spec's `root.path`).

    A plan is attached over "/" of the new namespace, where this process does not see it until it enters it by
    descriptor: no directory of the host has to lend its name. A directory is attached over itself, where hooks that
    mount something into the container look for it. Not `attached`, it stays outside of the mount namespace, which is
    somebody else's. One that was taken before, as the source `ROOT`, is a slave: what the host mounts in it is seen.
    """

    plan: "Rootfs | None"
    path: str = ""
    attached: bool = True
    ids: "Ids | None" = None

    def describe(self) -> str:
        """Say it."""
        if self.plan is None:
            return f"mount {self.path} as the root"
        mapped = f"; {self.ids.describe()}" if self.ids is not None else ""
        return f"mount {len(self.plan.lowers)} layers as the root, writes go to {self.plan.upper or 'nowhere'}{mapped}"

    def execute(self, place: Place) -> None:
        """Mount and attach."""
        where = "/" if self.plan is not None else self.path
        if self.plan is not None:
            if self.ids is not None and self.plan.upper:
                users.own(self.plan.upper, self.ids)
            place.root = mounts.open_rootfs(self.plan, user_namespace=place.user_namespace)
        else:
            taken = place.sources.pop(ROOT, -1)
            place.root = taken if taken >= 0 else mounts.clone(self.path, recursive=True)
            propagation = abi.MS_SLAVE if taken >= 0 else abi.MS_PRIVATE
            mounts.set_attributes(place.root, propagation=propagation, recursive=True)
        if not self.attached:
            return
        with opened(os.open(where, mounts.PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as target:
            mounts.attach(place.root, target, name=where)


def _proc_target(place: Place, destination: str) -> int:
    """Return the directory a kernel filesystem goes on; a symbolic link anywhere in its path is refused.

    An image that has /proc -> /tmp/x could otherwise decide which files we take for the kernel's (CVE-2019-19921).
    """
    os.close(mounts.make_directories(place.root, destination))
    path = destination.lstrip("/")
    resolve = abi.RESOLVE_NO_SYMLINKS
    try:
        return mounts.open_in_root(place.root, path, mounts.PATH | os.O_DIRECTORY, resolve=resolve)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise InvalidArgument(
                f"{destination} must be mounted on ordinary directory, not on a symbolic link of the image"
            ) from None
        raise


@dataclass(frozen=True, slots=True)
class MountFilesystem(Operation):
    """Mount a new filesystem (proc, sysfs, tmpfs, devpts, mqueue, ...) at a directory of the container."""

    destination: str
    kind: str
    source: str = ""
    options: Options = field(default_factory=Options)

    def describe(self) -> str:
        """Say it."""
        words = describe(self.options)
        return f"mount {self.kind} at {self.destination}" + (f" ({words})" if words else "")

    def execute(self, place: Place) -> None:
        """Mount detached, then attach."""
        pairs = [("source", self.source or self.kind), *self.options.data]
        # A tmpfs without a mode is 01777; a new one over an existing directory looks like it.
        if self.kind == "tmpfs" and "mode" not in dict(self.options.data):
            pairs += _mode_of(place, self.destination)
        if self.kind in ("proc", "sysfs"):
            target = _proc_target(place, self.destination)
        else:
            target = _directory(place.root, self.destination)
        with opened(target):
            try:
                mount = mounts.filesystem(self.kind, pairs, attributes=self.options.add)
            except OSError as error:
                raise OSError(error.errno, f"mount {self.kind} at {self.destination}: {error.strerror}") from error
            with opened(mount):
                if self.options.copy_up:
                    _copy_up(target, mount)
                place.put(mount, target, self.destination)
                _settle(mount, self.options)


def _directory(root: int, path: str) -> int:
    try:
        return mounts.make_directories(root, path)
    except NotADirectoryError:
        raise InvalidArgument(
            f"cannot mount a directory at {path}: what is there, or on the way there, is a file"
        ) from None


def _mode_of(place: Place, path: str) -> list[tuple[str, str]]:
    try:
        with opened(mounts.open_in_root(place.root, path)) as directory:
            return [("mode", format(stat.S_IMODE(os.fstat(directory).st_mode), "o"))]
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class CloseFilesystem(Operation):
    """Make a filesystem in memory read-only, once everything that belongs into it is there."""

    destination: str

    def describe(self) -> str:
        """Say it."""
        return f"make {self.destination} read-only"

    def execute(self, place: Place) -> None:
        """mount_setattr(2) on the mount alone."""
        with opened(mounts.open_in_root(place.root, self.destination)) as mount:
            mounts.set_attributes(mount, add=abi.MOUNT_ATTR_RDONLY)


def _copy_up(source: int, target: int) -> None:
    """Copy the files of the directory a tmpfs covers into it (`tmpcopyup`): regular files, directories, links."""
    with opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)) as listing:
        names = os.listdir(listing)
    for name in names:
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, dir_fd=target)
            flags = mounts.PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            with opened(os.open(name, flags, dir_fd=source)) as a, opened(os.open(name, flags, dir_fd=target)) as b:
                _copy_up(a, b)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(info.st_mode):
            reading, writing = os.O_RDONLY | os.O_NOFOLLOW, os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with (
                opened(os.open(name, reading | os.O_CLOEXEC, dir_fd=source)) as a,
                opened(os.open(name, writing | os.O_CLOEXEC, 0o600, dir_fd=target)) as b,
            ):
                while chunk := os.read(a, 1 << 20):
                    os.write(b, chunk)
        else:
            continue
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            # relative to a descriptor of ours: nobody else can reach this tmpfs yet
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)


def _settle(mount: int, options: Options) -> None:
    """Apply what could not be given at creation: recursive attributes and propagation."""
    if options.add_recursive or options.clear_recursive:
        mounts.set_attributes(mount, add=options.add_recursive, clear=options.clear_recursive, recursive=True)
    if options.propagation:
        mounts.set_attributes(mount, propagation=options.propagation, recursive=options.propagation_recursive)


@dataclass(frozen=True, slots=True)
class MountBind(Operation):
    """Put a file or directory of the host (taken before) at a path of the container.

    One that lies in the container's own root is taken now: mounts that were listed earlier are to be seen in it.
    """

    index: int
    source: str
    destination: str
    options: Options = field(default_factory=Options)
    take: "TakeSource | None" = None

    def describe(self) -> str:
        """Say it."""
        words = describe(self.options)
        return f"bind {self.source} at {self.destination}" + (f" ({words})" if words else "")

    def execute(self, place: Place) -> None:
        """Set its flags while it is nowhere, then attach: it never appears writable where it should not be."""
        if self.take is not None:
            self.take.execute(place)
        with opened(_latest(place.sources.pop(self.index), recursive=self.options.recursive)) as mount:
            options = self.options
            if options.copy_link and stat.S_ISLNK(os.fstat(mount).st_mode):
                mounts.make_link(place.root, self.destination, os.readlink("", dir_fd=mount))
                return
            propagation = options.propagation or abi.MS_PRIVATE
            recursive = options.propagation_recursive or not options.propagation
            mounts.set_attributes(mount, propagation=propagation, recursive=recursive)
            if options.add or options.clear:
                mounts.set_attributes(mount, add=options.add, clear=options.clear)
            if options.add_recursive or options.clear_recursive:
                mounts.set_attributes(mount, add=options.add_recursive, clear=options.clear_recursive, recursive=True)
            with opened(self._target(place, directory=mounts.is_directory(mount))) as target:
                place.put(mount, target, self.destination)

    def _target(self, place: Place, *, directory: bool) -> int:
        if self.options.destination_link:
            target = mounts.make_entry(place.root, self.destination)
        else:
            target = (_directory if directory else mounts.make_file)(place.root, self.destination)
        if syscalls.filesystem_type(target) == abi.PROC_SUPER_MAGIC and self.destination not in PROC_OVERLAYS:
            os.close(target)
            raise InvalidArgument(f"{self.destination} cannot be mounted because it is inside /proc")
        if mounts.is_directory(target) != directory:
            os.close(target)
            kinds = ("a directory", "a file") if directory else ("a file", "a directory")
            raise InvalidArgument(
                f"cannot mount {self.source} at {self.destination}: the source is {kinds[0]}, the target {kinds[1]}",
                hint="mount a file on a file and a directory on a directory",
            )
        return target


def _latest(taken: int, *, recursive: bool) -> int:
    """Return a copy of a mount that was taken before, so that it is younger than the mounts listed before it.

    /proc/PID/mountinfo lists mounts by age, and the spec's order is looked for there. Before Linux 6.15 a mount that is
    nowhere could not be copied: then the list is in another order, which is all the harm.
    """
    try:
        copy = mounts.clone("", directory=taken, recursive=recursive)
    except OSError:
        return taken
    os.close(taken)
    return copy


@dataclass(frozen=True, slots=True)
class MountCgroups(Operation):
    """Show the container its own control groups: one cgroup2, or a tmpfs with a directory per version 1 controller.

    Without a cgroup namespace of its own it is shown its `group` alone, by a bind mount.
    """

    destination: str
    version: int
    hierarchies: tuple[str, ...]
    options: Options = field(default_factory=Options)
    group: str = ""

    def describe(self) -> str:
        """Say it."""
        return f"mount the container's own cgroups (version {self.version}) at {self.destination}"

    def execute(self, place: Place) -> None:
        """With a cgroup namespace of its own, what is mounted begins at the container's group."""
        target = _proc_target(place, self.destination)
        with opened(target):
            if self.version == 2:
                with opened(self._mount("cgroup2", "")) as mount:
                    mounts.attach(mount, target, name=self.destination)
                return
            writable = self.options.add & ~abi.MOUNT_ATTR_RDONLY
            tmpfs = mounts.filesystem("tmpfs", [("source", "tmpfs"), ("mode", "755")], attributes=writable)
            with opened(tmpfs):
                for name in self.hierarchies:
                    os.mkdir(_mounted_at(name), 0o755, dir_fd=tmpfs)
                # Not once it is attached: below a root that is nowhere, as in the host's mount namespace, this fails.
                mounts.set_attributes(tmpfs, add=self.options.add)
                mounts.attach(tmpfs, target, name=self.destination)
                for name in self.hierarchies:
                    self._hierarchy(tmpfs, name)

    def _hierarchy(self, tmpfs: int, name: str) -> None:
        flags = mounts.PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            opened(os.open(_mounted_at(name), flags, dir_fd=tmpfs)) as place,
            opened(self._mount("cgroup", name)) as mount,
        ):
            mounts.attach(mount, place, name=name)

    def _mount(self, kind: str, name: str) -> int:
        if not self.group:
            words = [(key, value or None) for key, _, value in (word.partition("=") for word in name.split(",")) if key]
            return mounts.filesystem(kind, words, attributes=self.options.add)
        top = "/".join(("/sys/fs/cgroup", *_mounted_at(name).split(",")[:1], self.group)).replace("//", "/")
        mount = mounts.clone(top, recursive=False)
        mounts.set_attributes(mount, add=self.options.add)
        return mount


def _mounted_at(hierarchy: str) -> str:
    """Return where a hierarchy is mounted: one without controllers, `name=systemd`, by its name."""
    return hierarchy.removeprefix("name=")


@dataclass(frozen=True, slots=True)
class MaskPath(Operation):
    """Hide a path: a file behind the null device, a directory behind an empty one. An absent path is fine."""

    path: str

    def describe(self) -> str:
        """Say it."""
        return f"hide {self.path}"

    def execute(self, place: Place) -> None:
        """Cover with our own null device and our own empty directory, never the container's (CVE-2025-31133)."""
        try:
            target = mounts.open_in_root(place.root, self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        with opened(target):
            cover = _empty(place) if mounts.is_directory(target) else place.null
            assert cover is not None  # taken with our own mounts, before any of the container's
            cover.put(target, self.path)


def _empty(place: Place) -> Cover:
    if place.empty is None:
        attributes = abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV
        place.empty = Cover(mounts.filesystem("tmpfs", [("size", "0"), ("nr_inodes", "2")], attributes=attributes))
    return place.empty


@dataclass(frozen=True, slots=True)
class ReadOnlyPath(Operation):
    """Make a path of the container read-only by a bind mount of itself. An absent path is fine."""

    path: str

    def describe(self) -> str:
        """Say it."""
        return f"make {self.path} read-only"

    def execute(self, place: Place) -> None:
        """Copy, set the flag, put back."""
        try:
            target = mounts.open_in_root(place.root, self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        with opened(target), opened(mounts.clone("", directory=target, recursive=True)) as mount:
            mounts.set_attributes(mount, add=abi.MOUNT_ATTR_RDONLY, recursive=True)
            mounts.attach(mount, target, name=self.path)


@dataclass(frozen=True, slots=True)
class MakeDirectory(Operation):
    """Make a directory that the process needs, such as its working directory."""

    path: str

    def describe(self) -> str:
        """Say it."""
        return f"make sure that {self.path} exists"

    def execute(self, place: Place) -> None:
        """Create what is missing."""
        try:
            os.close(mounts.make_directories(place.root, self.path))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.ENOTDIR, errno.EEXIST):
                raise  # chdir says what is wrong with the others, as the process's own error


@dataclass(frozen=True, slots=True)
class SetRootFlags(Operation):
    """Make the root read-only, once everything in it is in place."""

    def describe(self) -> str:
        """Say it."""
        return "make the root read-only"

    def execute(self, place: Place) -> None:
        """mount_setattr(2) on the root alone."""
        mounts.set_attributes(place.root, add=abi.MOUNT_ATTR_RDONLY)


@dataclass(frozen=True, slots=True)
class EnterRoot(Operation):
    """Make the container's root this process's root, and let go of the host's.

    `how` is `pivot`; `cover` where the host's root is a ramdisk, which cannot be pivoted away from; `chroot` in a mount
    namespace that is somebody else's, whose root stays what it is. A root that is to be shared becomes so last, since
    pivot_root(2) refuses one that is.
    """

    how: str = "pivot"
    propagation: int = 0
    recursive: bool = False

    def describe(self) -> str:
        """Say it."""
        return "enter the root"

    def execute(self, place: Place) -> None:
        """pivot_root(2) or chroot(2)."""
        if self.how == "pivot":
            mounts.pivot(place.root)
        elif self.how == "cover":
            mounts.cover(place.root)
        else:
            mounts.chroot(place.root)
        if self.propagation:
            mounts.set_attributes(place.root, propagation=self.propagation, recursive=self.recursive)
