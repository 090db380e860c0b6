"""What is looked up before a container's spec can be written: its user, its volumes' directories, its devices."""

import os
import stat

from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.engine import nameservice
from kestrel.engine.identity import Identity, resolve
from kestrel.engine.model import Container, ContainerConfig, ContainerState, Sandbox
from kestrel.engine.parts import Parts
from kestrel.engine.seccomp import profile
from kestrel.engine.spec import Device, Facts
from kestrel.images import Image
from kestrel.linux.mounts import PATH, open_rootfs
from kestrel.linux.rootfs import Rootfs


def gather(
    parts: Parts, container: Container, sandbox: Sandbox, image: Image, rootfs: Rootfs, *, look: bool = False
) -> Facts:
    """Return the facts of one start, or of one that has been. Reads the image's files; call it in a thread.

    To `look` changes nothing: a volume that is not there yet is not made.
    """
    config, defaults = container.config, image.config.config
    user = config.security.user or defaults.user
    running = container.state is ContainerState.RUNNING
    return Facts(
        identity=identity_within(container, user) if running else identity_in(rootfs, user, config.security.groups),
        image=defaults,
        hostname=nameservice.hostname(sandbox),
        name_files=parts.sandbox_directory(sandbox.id),
        seccomp=profile(config.security),
        volumes={m.source: _volume(parts, m.source, look=look) for m in config.mounts if m.kind == "volume"},
        devices=_devices(config),
        own_processes=not (sandbox.config.share_pid or sandbox.config.host_pid),
        processes=_processes(parts, config),
    )


def identity_in(rootfs: Rootfs, user: str, groups: tuple[int, ...]) -> Identity:
    """Look a user up in a root filesystem that nobody has mounted, opened for just that."""
    root = open_rootfs(rootfs)
    try:
        return resolve(root, user, groups)
    finally:
        os.close(root)


def identity_within(container: Container, user: str) -> Identity:
    """Look a user up in the root that a running container has right now.

    Its plan must not be mounted for that: a second overlay empties the work directory of the first, and from then on
    nothing of the layers can be written to in the running container (overlayfs.rst, "Sharing and copying layers").
    """
    try:
        root = os.open(f"/proc/{container.pid}/root", PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FailedPrecondition(f"container {container.config.name} is not running: it has just ended") from error
    try:
        return resolve(root, user, container.config.security.groups)
    finally:
        os.close(root)


def _processes(parts: Parts, config: ContainerConfig) -> str:
    """Return the path of the PID namespace of the container whose processes this one shall be among."""
    if not config.processes_of:
        return ""
    other = parts.store.container(config.processes_of)
    if other.state is not ContainerState.RUNNING:
        raise FailedPrecondition(f"container {other.config.name}, whose processes it is to see, is not running")
    return f"/proc/{other.pid}/ns/pid"


def _volume(parts: Parts, name: str, *, look: bool) -> str:
    if look and name not in {volume.name for volume in parts.volumes.all()}:
        return f"a new volume {name}"
    parts.volumes.ensure(name)
    return str(parts.volumes.path(name))


def _devices(config: ContainerConfig) -> tuple[Device, ...]:
    found = []
    for source, target, access in config.devices:
        try:
            status = os.stat(source)
        except OSError as error:
            raise InvalidArgument(f"no device {source} on this machine: {error.strerror}") from error
        if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise InvalidArgument(f"{source} is not a device", hint="mount files and directories with -v instead")
        found.append(
            Device(
                path=target or source,
                kind="c" if stat.S_ISCHR(status.st_mode) else "b",
                major=os.major(status.st_rdev),
                minor=os.minor(status.st_rdev),
                access=access or "rwm",
            )
        )
    return tuple(found)
