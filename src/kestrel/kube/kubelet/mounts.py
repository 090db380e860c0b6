"""Makes a pod's volumes ready on this host, and says what each of them is a mount of.

Calls here block (files, ownership) and run in a thread. What a volume is made of was read from the API before: the
objects of projected volumes are rendered by `projection`, claims were resolved to a path. Every failure is a
FailedPrecondition whose message ends up in the pod's FailedMount event.

Sub-paths are opened beneath the volume by descriptor, and what was opened is mounted at a place of ours until the
container has started, because a container may replace a directory by a symbolic link between check and mount
(CVE-2017-1002101, CVE-2021-25741).
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrel.base.errors import FailedPrecondition, Unimplemented
from kestrel.engine.model import Mount
from kestrel.kube.api.pod_resources import amount
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.paths import Paths
from kestrel.kube.kubelet.projection import KINDS
from kestrel.linux import mounts as kernel
from kestrel.linux import syscalls

_PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
_NOSUID_NODEV = 0x2 | 0x4
_DETACH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A volume that can be mounted: the host's path, and whether it may never be written through."""

    path: Path
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A bound claim: where its volume's data is."""

    path: Path
    read_only: bool = False


def prepare(
    pod: JSONObject, volume: JSONObject, paths: Paths, *, claims: Mapping[str, Claim], group: int | None
) -> Ready:
    """Make one volume ready; `claims` are the pod's bound claims by name, `group` its fsGroup."""
    name, uid = volume["name"], pods.uid(pod)
    if any(kind in volume for kind in KINDS):
        return Ready(path=paths.projected(uid, name), read_only=True)
    if "emptyDir" in volume:
        return _empty_dir(paths.volume(uid, name), volume["emptyDir"] or {}, group)
    if "hostPath" in volume:
        return Ready(path=_host_path(volume["hostPath"]))
    if "persistentVolumeClaim" in volume:
        claim = claims[volume["persistentVolumeClaim"]["claimName"]]
        read_only = claim.read_only or bool(volume["persistentVolumeClaim"].get("readOnly"))
        if not claim.path.is_dir():
            raise FailedPrecondition(f"the data of claim {volume['persistentVolumeClaim']['claimName']} is gone: "
                                     f"{claim.path} does not exist")  # fmt: skip
        if group is not None and not read_only:
            _give_to_group(claim.path, group, only_if_needed=_on_mismatch(pod))
        return Ready(path=claim.path, read_only=read_only)
    kinds = ", ".join(key for key in volume if key != "name") or "none"
    raise Unimplemented(
        f"volumes of this kind are not supported: {kinds}",
        hint="supported are emptyDir, hostPath, configMap, secret, downwardAPI, projected and persistentVolumeClaim",
    )


def _on_mismatch(pod: JSONObject) -> bool:
    return (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy") == "OnRootMismatch"


def _empty_dir(path: Path, source: JSONObject, group: int | None) -> Ready:
    fresh = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    if source.get("medium") == "Memory" and str(path) not in _mount_points():
        size = int(amount(source["sizeLimit"])) if source.get("sizeLimit") else 0
        options = f"mode=0777{f',size={size}' if size else ''}"
        syscalls.mount("tmpfs", str(path), "tmpfs", _NOSUID_NODEV, options)
        fresh = True
    elif source.get("medium") not in (None, "", "Memory"):
        raise Unimplemented(f"emptyDir medium {source['medium']} is not supported", hint="use Memory or leave it out")
    if fresh:
        os.chmod(path, 0o777)
        if group is not None:
            _give_to_group(path, group)
    return Ready(path=path)


def _give_to_group(top: Path, group: int, *, only_if_needed: bool = False) -> None:
    """Let a group read and write everything below `top`, and let what is made there belong to it."""
    info = os.stat(top)
    wanted = stat.S_ISGID | 0o070
    if only_if_needed and info.st_gid == group and info.st_mode & wanted == wanted:
        return
    for directory, names, files in os.walk(top):
        for entry in (directory, *(os.path.join(directory, child) for child in (*names, *files))):
            info = os.lstat(entry)
            if stat.S_ISLNK(info.st_mode):
                os.lchown(entry, -1, group)
                continue
            os.chown(entry, -1, group)
            extra = stat.S_ISGID | 0o070 if stat.S_ISDIR(info.st_mode) else 0o060
            os.chmod(entry, stat.S_IMODE(info.st_mode) | extra)


def _host_path(source: JSONObject) -> Path:
    """Check a path of the host against its type (kubernetes.io "Volumes", hostPath volume types)."""
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(mode=0o755, parents=True)
    if kind == "FileOrCreate" and not path.exists():
        _create_file(path)
    check = _CHECKS.get(kind)
    if check is not None and not check(path):
        raise FailedPrecondition(f"hostPath type check failed: {path} is not a {_KIND_WORDS[kind]}")
    if not kind and not path.exists():
        # docker makes a missing directory, and Kubernetes has always let the runtime do so for an empty type.
        path.mkdir(mode=0o755, parents=True)
    return path


def _create_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise FailedPrecondition(f"cannot create {path}: {error.strerror}") from error


_CHECKS: Mapping[str, Callable[[Path], bool]] = {
    "Directory": Path.is_dir,
    "DirectoryOrCreate": Path.is_dir,
    "File": Path.is_file,
    "FileOrCreate": Path.is_file,
    "Socket": Path.is_socket,
    "CharDevice": Path.is_char_device,
    "BlockDevice": Path.is_block_device,
}
_KIND_WORDS = {
    "Directory": "directory",
    "DirectoryOrCreate": "directory",
    "File": "file",
    "FileOrCreate": "file",
    "Socket": "socket",
    "CharDevice": "character device",
    "BlockDevice": "block device",
}


@dataclass(slots=True)
class Mounts:
    """A container's mounts, and the places of ours that hold its sub-paths until it has been started."""

    mounts: list[Mount]
    staged: list[Path]

    def close(self) -> None:
        """Take the places away; a container that was started keeps what it has mounted."""
        while self.staged:
            _unstage(self.staged.pop())


def container_mounts(
    container: JSONObject, volumes: Mapping[str, Ready], stage: Path, expand: Callable[[str], str]
) -> Mounts:
    """Return the mounts of one container; `expand` resolves $(VAR) in `subPathExpr`. Close the result after start.

    `stage` is a directory of ours for this container; it is made when needed.
    """
    result = Mounts([], [])
    try:
        for wanted in container.get("volumeMounts") or ():
            result.mounts.append(_mount(wanted, volumes, stage, expand, result.staged))
    except BaseException:
        result.close()
        raise
    return result


def _mount(
    wanted: JSONObject, volumes: Mapping[str, Ready], stage: Path, expand: Callable[[str], str], staged: list[Path]
) -> Mount:
    volume = volumes.get(wanted["name"])
    if volume is None:
        raise FailedPrecondition(f"volume {wanted['name']} of mount {wanted['mountPath']} is not in the pod")
    source = volume.path
    sub = wanted.get("subPath") or (expand(wanted["subPathExpr"]) if wanted.get("subPathExpr") else "")
    if sub:
        source = stage / str(len(staged))
        _stage(volume.path, sub, source)
        staged.append(source)
    target = str(wanted["mountPath"])
    return Mount(
        target=target if target.startswith("/") else f"/{target}",
        source=str(source),
        read_only=volume.read_only or bool(wanted.get("readOnly")),
        propagation=_PROPAGATION[wanted.get("mountPropagation") or "None"],
    )


def _stage(root: Path, sub: str, place: Path) -> None:
    """Mount what `sub` names beneath `root` at `place`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _unstage(place)  # left over when the daemon was killed right here
    with kernel.opened(_open_sub_path(root, sub)) as found, kernel.opened(kernel.clone("", directory=found)) as copy:
        if kernel.is_directory(found):
            place.mkdir()
        else:
            place.touch()
        with kernel.opened(os.open(place, os.O_PATH | os.O_CLOEXEC)) as target:
            kernel.attach(copy, target, name=str(place))


def _unstage(place: Path) -> None:
    if str(place) in _mount_points():
        syscalls.umount(str(place), _DETACH)
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink(missing_ok=True)


def _mount_points() -> set[str]:
    """Return where this mount namespace has mounts (`man 5 proc_pid_mountinfo`, field 5)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split(" ")[4].replace("\\040", " ") for line in lines}


def _open_sub_path(root: Path, sub: str) -> int:
    """Open `sub` beneath a volume, making directories that are missing; the descriptor is an O_PATH one."""
    if sub.startswith("/") or ".." in sub.split("/"):
        raise FailedPrecondition(f"invalid subPath {sub!r}", hint="use a relative path without ..")
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            return kernel.open_in_root(top, sub, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise FailedPrecondition(f"cannot open subPath {sub!r}: {error.strerror}") from error
        return kernel.make_directories(top, sub, mode=0o750)
    finally:
        os.close(top)


def release(top: Path) -> None:
    """Take away every mount below a directory, the innermost first."""
    for place in sorted((point for point in _mount_points() if point.startswith(f"{top}/")), reverse=True):
        syscalls.umount(place, _DETACH)


def clean_up(uid: str, paths: Paths) -> None:
    """Remove everything a pod's volumes left on this host; claims' data stays. Repeating it is fine."""
    release(paths.pod_state(uid))
    for directory in (paths.pod_state(uid), paths.pod_volatile(uid)):
        shutil.rmtree(directory, ignore_errors=True)
