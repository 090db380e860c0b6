"""What the processes of the runtime say to each other, as typed values.

A request is `{"id": 7, "do": "create", "with": {...}}`; its answer `{"id": 7, "ok": {...}}` or
`{"id": 7, "error": {"kind", "message", "hint", "context"}}`; an event `{"event": "exited", ...}` has no id. The
`with` of each request is one of the frozen classes below, by its fields' names. `channel.py` frames them.
"""

from __future__ import annotations

from kestrel.base import plainjson
from kestrel.base.errors import KINDS, Internal, InvalidArgument, KestrelError
from kestrel.base.values import asdict, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime  # the shim does without it
    from typing import Any, ClassVar, Self, TypeVar

    T = TypeVar("T")
    JSON = dict[str, Any]  # Any: raw JSON


INHERITED = ("env", "cwd", "user", "capabilities", "rlimits", "noNewPrivileges", "oomScoreAdj")
"""Members of a container's `process` that a process which joins it has too, unless it says otherwise."""

SOCKET = "shim.sock"
"""The name, in a sandbox's directory, of the socket its shim listens on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """A sandbox to hold: namespaces of its own, or the host's where it says so.

    `directory` is private to the sandbox; `shim.sock`, `shim.log` and `exits/` appear in it. `sysctls`
    are written once, in the sandbox's namespaces. `cgroup` is the parent of its containers' groups, relative to each
    hierarchy's root; the shim removes it when it ends. With mappings (the spec's form) there is a user namespace, which
    the sandbox's own namespaces belong to and its containers with the same mappings share.
    """

    id: str
    directory: str
    hostname: str = ""
    domainname: str = ""
    host_network: bool = False
    host_ipc: bool = False
    host_pid: bool = False
    share_pid: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cgroup: str = ""
    uid_mappings: Sequence[JSON] = ()
    gid_mappings: Sequence[JSON] = ()
    rest_after: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """Where a container's output is written in CRI's format; rotated to PATH.1, PATH.2, ... when it has grown.

    `max_size` in bytes, 0 for no limit; `max_files` counts the current one too.
    """

    path: str
    max_size: int = 10 * 1024 * 1024
    max_files: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """A container to make ready: everything but the exec of its process.

    `spec` is JSON text, which only the container's own process reads; what the shim has to know of it stands beside
    it: the types of its new `namespaces`, the path of the `pid_namespace` it joins, its `resources` and
    mappings, and of its `process`, again as text, what a later exec inherits. `asked` fills these in.

    `rootfs` is `linux.rootfs.Rootfs.to_json()`, or None for the spec's `root.path`. `cgroup` is relative to each
    hierarchy's root. With `stdin` the process reads what attachers write; with `stdin_once` it sees the end when the
    first attacher has closed its side or gone.
    """

    container_id: str
    spec: str
    process: str = "{}"
    namespaces: Sequence[str] = ()
    pid_namespace: str = ""
    resources: JSON = field(default_factory=dict)
    uid_mappings: Sequence[JSON] = ()
    gid_mappings: Sequence[JSON] = ()
    rootfs: JSON | None = None
    log: JSON | None = None
    terminal: bool = False
    stdin: bool = False
    stdin_once: bool = False
    cgroup: str = ""
    width: int = 0
    height: int = 0

    @classmethod
    def asked(cls, container_id: str, spec: JSON, *, cgroup: str = "", terminal: bool = False, **more: Any) -> Self:
        """Return the request for a spec."""
        linux, process = spec.get("linux") or {}, spec.get("process") or {}
        entries = linux.get("namespaces") or ()
        return cls(
            container_id=container_id,
            spec=plainjson.dumps(spec),
            process=plainjson.dumps({name: process[name] for name in INHERITED if name in process}),
            namespaces=[entry.get("type", "") for entry in entries if not entry.get("path")],
            pid_namespace=next((e["path"] for e in entries if e.get("type") == "pid" and e.get("path")), ""),
            resources=linux.get("resources") or {},
            uid_mappings=linux.get("uidMappings") or (),
            gid_mappings=linux.get("gidMappings") or (),
            cgroup=cgroup or linux.get("cgroupsPath") or "",
            terminal=terminal or bool(process.get("terminal")),
            **more,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A second process in a running container; `process` is the spec's form, and what it omits is the container's."""

    container_id: str
    process: JSON
    terminal: bool = False
    stdin: bool = False
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A container's process has ended and everything of it is dead; its exit file is on disk.

    `exit_code` is 128 + signal when a signal ended it. `oom` says that the kernel killed something in its group for
    memory. `time` is in seconds since the epoch.
    """

    container_id: str
    exit_code: int
    oom: bool = False
    time: float = 0.0
    kind: ClassVar[str] = "exited"

    @property
    def moment(self) -> datetime:
        """When it ended."""
        return _moment(self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """The kernel has killed a process of the container for memory; the container may live on."""

    container_id: str
    time: float = 0.0
    kind: ClassVar[str] = "oom"

    @property
    def moment(self) -> datetime:
        """When it was noticed."""
        return _moment(self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    """One container of a shim. `status` has the runtime-spec's words: creating, created, running, paused, stopped."""

    container_id: str
    status: str
    pid: int = 0
    exit_code: int | None = None
    oom: bool = False
    started: float = 0.0
    finished: float = 0.0


def _moment(seconds: float) -> datetime:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC)


def to_json(value: Any) -> JSON:
    """Return the fields of a message as a dict."""
    return asdict(value)


def from_json(kind: type[T], data: JSON) -> T:
    """Build a message of `kind`. Raises InvalidArgument when a field is missing or unknown."""
    try:
        return kind(**data)
    except TypeError as error:
        raise InvalidArgument(f"bad {kind.__name__} message: {error}") from error


def error_to_json(error: BaseException) -> JSON:
    """Return an error as it travels between processes."""
    if isinstance(error, KestrelError):
        context = {k: v for k, v in error.context.items() if isinstance(v, str | int | float | bool)}
        return {"kind": error.kind, "message": error.message, "hint": error.hint, "context": context}
    return {"kind": "internal", "message": f"{type(error).__name__}: {error}", "hint": None, "context": {}}


def error_from_json(data: JSON) -> KestrelError:
    """Return the error that `error_to_json` described."""
    kind = KINDS.get(str(data.get("kind")), Internal)
    return kind(str(data.get("message")), hint=data.get("hint"), **data.get("context", {}))
