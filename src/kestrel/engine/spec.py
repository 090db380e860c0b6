"""A container as the OCI runtime spec says it: where docker's and Kubernetes' words become the kernel's.

Pure: everything that had to be looked up (identity, volumes' directories, device numbers) comes in as values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kestrel.base.errors import InvalidArgument
from kestrel.engine.identity import Identity
from kestrel.engine.model import Container, Mount, Resources, Security
from kestrel.engine.nameservice import FILES
from kestrel.engine.ranges import mappings
from kestrel.engine.rights import capability_sets
from kestrel.oci.config import ContainerDefaults
from kestrel.oci.runtime_defaults import NAMESPACES, default_spec

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CPU_PERIOD = 100_000  # microseconds; the kernel's default and docker's
JSON = dict[str, Any]  # Any: raw JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node of the host that a container may use."""

    path: str
    kind: str
    major: int
    minor: int
    access: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was looked up for this start.

    `volumes` maps a volume's name to its directory on the host. With `own_processes` off the container shares the
    PID namespace of its shim: the sandbox's, or the host's. `processes` is the path of another one to be in.
    """

    identity: Identity
    image: ContainerDefaults
    hostname: str
    name_files: Path
    seccomp: JSON | None
    volumes: Mapping[str, str]
    devices: tuple[Device, ...] = ()
    own_processes: bool = True
    processes: str = ""


def build(container: Container, facts: Facts) -> JSON:
    """Return the whole spec. Raises InvalidArgument for a word that means nothing."""
    config = container.config
    security = config.security
    own = facts.own_processes and not facts.processes
    spec: JSON = default_spec(namespaces=(name for name in NAMESPACES if name != "pid" or own))
    if facts.processes:
        spec["linux"]["namespaces"].append({"type": "pid", "path": facts.processes})
    spec["process"] = process(container, facts)
    spec["root"] = {"path": "rootfs", "readonly": security.read_only_root}
    if config.resources.shm_size:
        _resize_shm(spec["mounts"], config.resources.shm_size)
    spec["mounts"] += [*_name_files(facts, security), *(_mount(m, facts.volumes) for m in _ordered(config.mounts))]
    spec["annotations"] = dict(config.annotations)
    linux = spec["linux"]
    linux["resources"] = {**linux.get("resources", {}), **resources(config.resources)}
    if facts.seccomp is not None:
        linux["seccomp"] = facts.seccomp
    if security.unmask_proc or security.privileged:
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
    _add_devices(linux, facts.devices)
    if container.first_id:
        _map_users(spec, container.first_id)
    if security.privileged:
        _unlock(spec)
    return spec


def process(container: Container, facts: Facts) -> JSON:
    """Return the spec's `process`: arguments, environment, user, directory, rights."""
    config = container.config
    made: JSON = {
        "terminal": config.tty,
        "args": arguments(container, facts.image),
        "env": environment(config.env, facts, tty=config.tty),
        "cwd": config.cwd or facts.image.working_dir or "/",
        "user": user(facts.identity),
        "capabilities": capability_sets(config.security),
        "noNewPrivileges": config.security.no_new_privileges,
    }
    if config.resources.oom_score_adj is not None:
        made["oomScoreAdj"] = config.resources.oom_score_adj
    if config.resources.ulimits:
        made["rlimits"] = [_rlimit(*each) for each in config.resources.ulimits]
    return made


def arguments(container: Container, image: ContainerDefaults) -> list[str]:
    """Join command and arguments as docker and Kubernetes do: a command of one's own drops the image's CMD too."""
    config = container.config
    if config.command is not None:
        argv = [*config.command, *(config.args or ())]
    else:
        argv = [*(image.entrypoint or ()), *((image.cmd or ()) if config.args is None else config.args)]
    if not argv:
        raise InvalidArgument(
            f"no command: image {config.image} has neither ENTRYPOINT nor CMD",
            hint="say what to run: a command after the image's name, or `command` in the manifest",
        )
    return argv


def environment(own: tuple[tuple[str, str], ...], facts: Facts, *, tty: bool) -> list[str]:
    """Return the image's environment with the container's own over it, and what every process may count on."""
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": facts.hostname}
    if tty:
        values["TERM"] = "xterm"
    values |= facts.image.environment() | dict(own)
    values.setdefault("HOME", facts.identity.home)
    return [f"{name}={value}" for name, value in values.items()]


def user(identity: Identity) -> JSON:
    """Return the spec's `process.user`."""
    return {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)}


def resources(limits: Resources) -> JSON:
    """Return the spec's `linux.resources` for the limits that are set."""
    memory = {"limit": limits.memory, "swap": limits.memory_swap or limits.memory} if limits.memory else {}
    cpu: JSON = {}
    if limits.cpu_millis:
        cpu |= {"quota": limits.cpu_millis * CPU_PERIOD // 1000, "period": CPU_PERIOD}
    if limits.cpu_shares:
        cpu["shares"] = limits.cpu_shares
    if limits.cpuset:
        cpu["cpus"] = limits.cpuset
    pids = {"limit": limits.pids} if limits.pids else {}
    return {key: value for key, value in (("memory", memory), ("cpu", cpu), ("pids", pids)) if value}


def _rlimit(name: str, soft: int, hard: int) -> JSON:
    """Return one of `process.rlimits`; no limit is the largest number there is (`man 2 getrlimit`, RLIM_INFINITY)."""
    return {"type": f"RLIMIT_{name.upper()}", "soft": soft % (1 << 64), "hard": hard % (1 << 64)}


def _resize_shm(mounts: list[JSON], size: int) -> None:
    mount = next(mount for mount in mounts if mount["destination"] == "/dev/shm")
    mount["options"] = [option for option in mount["options"] if not option.startswith("size=")] + [f"size={size}"]


def _name_files(facts: Facts, security: Security) -> list[JSON]:
    options = ["bind", "rprivate", *(["ro"] if security.read_only_root else [])]
    return [
        {"destination": f"/etc/{name}", "type": "bind", "source": str(facts.name_files / name), "options": options}
        for name in FILES
    ]


def _ordered(mounts: tuple[Mount, ...]) -> list[Mount]:
    """Parents before what is mounted inside them."""
    return sorted(mounts, key=lambda mount: mount.target.rstrip("/").count("/"))


def _mount(mount: Mount, volumes: Mapping[str, str]) -> JSON:
    access = "ro" if mount.read_only else "rw"
    if mount.kind == "tmpfs":
        size = [f"size={mount.size}"] if mount.size else []
        options = ["nosuid", "nodev", "mode=1777", access, *size]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    source = volumes[mount.source] if mount.kind == "volume" else mount.source
    return {
        "destination": mount.target,
        "type": "bind",
        "source": source,
        "options": ["bind" if mount.kind == "mapped" else "rbind", mount.propagation, access],
    }


def _add_devices(linux: JSON, devices: tuple[Device, ...]) -> None:
    allowed = linux["resources"].setdefault("devices", [])
    for device in devices:
        node = {"path": device.path, "type": device.kind, "major": device.major, "minor": device.minor}
        linux.setdefault("devices", []).append({**node, "fileMode": 0o666, "uid": 0, "gid": 0})
        rule = {"type": device.kind, "major": device.major, "minor": device.minor, "access": device.access}
        allowed.append({"allow": True, **rule})


def _map_users(spec: JSON, first: int) -> None:
    """Give the container a user namespace; what it is given of the host has the same owners as without one.

    The files of `_name_files` are the sandbox's own, and belong to its root already.
    """
    linux = spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = mappings(first)
    for mount in spec["mounts"]:
        if "rbind" in mount["options"]:
            mount["options"] = [*mount["options"], "ridmap"]


def _unlock(spec: JSON) -> None:
    """Give a privileged container every device and a writable /sys, as docker does."""
    spec["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    spec["linux"].pop("seccomp", None)
    for mount in spec["mounts"]:
        if mount["type"] in ("sysfs", "cgroup"):
            mount["options"] = [option for option in mount["options"] if option != "ro"]
