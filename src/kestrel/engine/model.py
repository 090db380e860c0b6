"""What containers and sandboxes are: values, not wire types.

A *sandbox* is what one shim serves: namespaces that containers share (network, IPC, UTS) and one place in the
network. A *container* is an image's files, a process and its limits, in a sandbox. `docker run` makes a sandbox of
its own for its container; a Pod is a sandbox with several.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from kestrel.network import PortMapping


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """What /etc/resolv.conf says. Empty servers mean the platform's own resolver."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """What a sandbox should be.

    `network` is `bridge`, `host` or `none`. `names` are the names by which others on the bridge may resolve it.
    `labels` and `annotations` are the caller's, stored and handed back. `hosts` are extra (address, names) lines of
    /etc/hosts. `users` is `auto`, `own` for a user namespace or an error, or `host` (`users.py`). One that is not
    `lasting` ends with us, however we end: nobody would take it back.
    """

    name: str
    hostname: str = ""
    network: str = "bridge"
    users: str = "auto"
    lasting: bool = True
    ports: tuple[PortMapping, ...] = ()
    dns: DnsConfig = field(default_factory=DnsConfig)
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    names: tuple[str, ...] = ()
    share_pid: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class SandboxState(StrEnum):
    """A sandbox is ready while its shim lives."""

    READY = "ready"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A sandbox as it is: `address` is its IPv4 address on the bridge, empty without one.

    `first_id` is the host's number of its user 0; 0 when it has the host's users (`ranges.py`).
    """

    id: str
    config: SandboxConfig
    state: SandboxState
    created: datetime
    address: str = ""
    ports: tuple[PortMapping, ...] = ()
    shim_pid: int = 0
    first_id: int = 0
    reason: str = ""
    """Why it is stopped, when it was not asked to: `shim was killed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file or directory of the host, a volume, or memory, at a path of the container.

    `kind` is `bind` (source: host path), `mapped` (the same, of one mount whose owners are the container's already),
    `volume` (source: volume name) or `tmpfs` (`size` in bytes, 0 no limit).
    """

    target: str
    source: str = ""
    kind: str = "bind"
    read_only: bool = False
    propagation: str = "rprivate"
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits; 0 or None means none. CPU is in thousandths of a core, memory and /dev/shm in bytes.

    `ulimits` are what a process may have open, locked and so on (`man 2 getrlimit`): name, soft and hard limit, the
    name as `nofile`, a limit of -1 being none. /dev/shm has docker's 64 MiB where `shm_size` is 0.
    """

    memory: int = 0
    memory_swap: int = 0
    cpu_millis: int = 0
    cpu_shares: int = 0
    cpuset: str = ""
    pids: int = 0
    oom_score_adj: int | None = None
    shm_size: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What the process may do beyond or below the default.

    `seccomp` is `default`, `unconfined` or a path to a profile. `user` is docker's form (`name`, `uid`, `uid:gid`);
    empty means the image's.
    """

    privileged: bool = False
    user: str = ""
    groups: tuple[int, ...] = ()
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    read_only_root: bool = False
    seccomp: str = "default"
    unmask_proc: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """What a container should be.

    `image` is a reference or digest that the image store resolves. `command` replaces the image's ENTRYPOINT and
    `args` its CMD when not None (Kubernetes' words; docker's `--entrypoint` and arguments). `sandbox` is the id of
    an existing sandbox, or None to make one from `network` and `ports`. `processes_of` is a running container of the
    same sandbox whose processes it shall see and be among. `log_path` is where the shim writes the log
    in CRI format; empty means the engine's own place. `auto_remove` is `run --rm`. `init` puts a small reaper at PID 1.
    """

    name: str
    image: str
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    mounts: tuple[Mount, ...] = ()
    resources: Resources = field(default_factory=Resources)
    security: Security = field(default_factory=Security)
    devices: tuple[tuple[str, str, str], ...] = ()
    sandbox: str | None = None
    sandbox_config: SandboxConfig | None = None
    processes_of: str = ""
    stop_signal: str = ""
    stop_timeout: float = 10.0
    auto_remove: bool = False
    log_path: str = ""
    log_max_size: int = 10 * 1024 * 1024
    log_max_files: int = 5
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class ContainerState(StrEnum):
    """Docker's words; CRI's are CREATED, RUNNING, EXITED."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as it is. `exit_code` is 128 + signal when a signal ended it; None until it has ended.

    `reason` is `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun` or `ShimKilled`; `message` is for people.
    `first_id` is the host's number of its user 0, to whom on disk belongs what its root writes; 0 for the host's users.
    """

    id: str
    config: ContainerConfig
    sandbox: str
    image_id: str
    image_digest: str
    state: ContainerState
    created: datetime
    first_id: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    reason: str = ""
    message: str = ""
    log_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEvent:
    """One thing that happened, as `docker events` and the kubelet want to hear of it.

    `action` is create, start, exit, oom, remove, sandbox-start or sandbox-stop.
    """

    action: str
    sandbox: str
    container: str = ""
    moment: datetime
    exit_code: int | None = None
