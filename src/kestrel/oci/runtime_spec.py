"""The OCI runtime specification (1.2/1.3, `config.md`, `config-linux.md`) as types of plain JSON.

A spec stays the dict it was read as: unknown members survive, and nothing is converted on the way to the process
that carries it out. All members are optional here as far as the type goes; `runtime.validate` says what is required.
"""

from typing import Any, TypedDict


class Root(TypedDict, total=False):
    """`root`: the container's root filesystem."""

    path: str
    readonly: bool


class Mount(TypedDict, total=False):
    """One of `mounts`, in the order in which they are made."""

    destination: str
    type: str
    source: str
    options: list[str]


class User(TypedDict, total=False):
    """`process.user`."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]


class ConsoleSize(TypedDict):
    """`process.consoleSize`, in characters."""

    height: int
    width: int


class Rlimit(TypedDict):
    """One of `process.rlimits`: `type` is RLIMIT_NOFILE and so on."""

    type: str
    soft: int
    hard: int


class Capabilities(TypedDict, total=False):
    """`process.capabilities`: names such as CAP_CHOWN."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Process(TypedDict, total=False):
    """`process`: what runs and as whom."""

    terminal: bool
    consoleSize: ConsoleSize
    user: User
    args: list[str]
    env: list[str]
    cwd: str
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int


class Namespace(TypedDict, total=False):
    """One of `linux.namespaces`: new without `path`; a type that is not listed is inherited from the runtime."""

    type: str
    path: str


class Device(TypedDict, total=False):
    """One of `linux.devices`."""

    path: str
    type: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class Seccomp(TypedDict, total=False):
    """`linux.seccomp`."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    syscalls: list[dict[str, Any]]


class Linux(TypedDict, total=False):
    """`linux`."""

    namespaces: list[Namespace]
    devices: list[Device]
    cgroupsPath: str
    resources: dict[str, Any]
    sysctl: dict[str, str]
    seccomp: Seccomp
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    uidMappings: list[dict[str, int]]
    gidMappings: list[dict[str, int]]


class Spec(TypedDict, total=False):
    """config.json."""

    ociVersion: str
    root: Root
    mounts: list[Mount]
    process: Process
    hostname: str
    domainname: str
    hooks: dict[str, list[dict[str, Any]]]
    annotations: dict[str, str]
    linux: Linux
