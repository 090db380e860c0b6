"""What the command line may ask: one typed request a verb. Unknown fields are refused, not ignored."""

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests."""


class Nothing(Request, frozen=True):
    """A verb that takes nothing."""


class Named(Request, frozen=True):
    """A verb for some things by name."""

    names: tuple[str, ...]


class RunRequest(Request, frozen=True):
    """`kestrel run`: docker's words, unread."""

    image: str
    command: tuple[str, ...] | None = None
    entrypoint: str | None = None
    name: str = ""
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    rm: bool = False
    pull: str = "missing"
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    hostname: str = ""
    network: str = "bridge"
    userns: str = ""
    pid: str = ""
    ipc: str = ""
    device: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    volume: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    memory: str = ""
    cpus: float = 0
    pids_limit: int = 0
    shm_size: str = ""
    ulimit: tuple[str, ...] = ()
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    read_only: bool = False
    stop_signal: str = ""


class ExecRequest(Request, frozen=True):
    """`kestrel exec`."""

    name: str
    command: tuple[str, ...]
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    privileged: bool = False


class PsRequest(Request, frozen=True):
    """`kestrel ps`."""

    all: bool = False


class LogsRequest(Request, frozen=True):
    """`kestrel logs`; `tail` is a number of lines or `all`, `since` an RFC 3339 time or a duration such as `10m`."""

    name: str
    follow: bool = False
    tail: str = "all"
    since: str = ""
    timestamps: bool = False


class StopRequest(Named, frozen=True):
    """`kestrel stop`; `time` in seconds before SIGKILL."""

    time: float | None = None


class KillRequest(Named, frozen=True):
    """`kestrel kill`."""

    signal: str = "KILL"


class RemoveRequest(Named, frozen=True):
    """`kestrel rm` and `kestrel rmi`."""

    force: bool = False


class ImagesRequest(Request, frozen=True):
    """`kestrel images`."""

    name: str = ""


class ImageRequest(Request, frozen=True):
    """`kestrel pull` and `kestrel push`."""

    name: str


class ExportRequest(Request, frozen=True):
    """`kestrel export`; `name` is a container's."""

    name: str


class ImportRequest(Request, frozen=True):
    """`kestrel import`; an empty `name` leaves the image without one."""

    name: str = ""


class CommitRequest(ExportRequest, frozen=True):
    """`kestrel commit`."""

    names: tuple[str, ...] = ()
    author: str = ""
    message: str = ""


class DiffRequest(Request, frozen=True):
    """`kestrel image diff`."""

    old: str
    new: str


class LoginRequest(Request, frozen=True):
    """`kestrel login`, and with an empty username `kestrel logout`."""

    registry: str
    username: str = ""
    password: str = ""


class CopyRequest(Request, frozen=True):
    """`kestrel copy`; an empty `platform` means all there are."""

    source: str
    target: str
    platform: str = ""
    referrers: bool = False


class TagRequest(Request, frozen=True):
    """`kestrel tag`."""

    source: str
    target: str


class BootstrapRequest(Request, frozen=True):
    """`kestrel image bootstrap`."""

    name: str = ""
    variant: str = ""
    include: tuple[str, ...] = ()


class BuildRequest(Request, frozen=True):
    """`kestrel build`; paths are absolute, on this machine. `dockerfile_text` is there instead of a file."""

    context: str
    dockerfile: str = ""
    dockerfile_text: bytes | None = None
    tags: tuple[str, ...] = ()
    build_args: tuple[str, ...] = ()
    target: str = ""
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    network: str = ""
    allow: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    userns: str = ""
    hostname: str = ""
    memory: str = ""
    cpus: float = 0
    shm_size: str = ""
    ulimits: tuple[str, ...] = ()
    secrets: dict[str, str] = {}
    secret_values: dict[str, bytes] = {}
    ssh: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    verify: bool = False


class CheckRequest(BuildRequest, frozen=True):
    """`kestrel build --check`, `--fix`, `--outline` and `--targets`; `ask` is the option's name."""

    ask: str = "check"
    registries: tuple[str, ...] = ()


class BuilderPruneRequest(Request, frozen=True):
    """`kestrel builder prune`; `unused_for` in seconds or a duration such as `72h`, `keep` a size."""

    unused_for: str = ""
    keep: str = ""
    all: bool = False
    dry_run: bool = False


class PruneRequest(Request, frozen=True):
    """`kestrel prune`."""

    all: bool = False


class DownRequest(Request, frozen=True):
    """`kestrel down`; `all` also ends containers and takes the network away."""

    all: bool = False


class RegistryRequest(Request, frozen=True):
    """`kestrel registry`: its words as they were typed, `grants` as PATTERN:ACTIONS."""

    words: tuple[str, ...]
    password: str = ""
    grants: tuple[str, ...] = ()
    label: str = ""
    days: float = 0
    dry_run: bool = False
    untagged: bool = False
    default: bool = False
