"""What the command keeps of a container between two calls: a directory per container below its root.

    ROOT/ID/state.json     who it is (`Record`), written when it is created
    ROOT/ID/config.json    its spec, as it was then: later changes of the bundle change nothing
    ROOT/ID/start.sock     where its first process waits for `start`; gone once it was told to go
    ROOT/.seccomp/         compiled filters

Making the directory is what takes the id. Nothing else is stored: whether it runs, is paused or has ended is asked of
the kernel each time. A process is known by its number and the time it was started (`man 5 proc`, stat), so that a
number used again is not taken for the container.
"""

import errno
import os

from kestrel.base import plainjson
from kestrel.base.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound
from kestrel.runtime import state

TYPE_CHECKING = False  # typing and its like cost more than `state` has to do
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from kestrel.linux import sockets

ROOT = "/run/kestrel-runtime"
STATE, CONFIG, GATE = "state.json", "config.json", "start.sock"
LONGEST = 1024  # characters in an id, as runc has it

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-")
_LATER = _FIRST | {"."}


class Record:
    """A container of the command. `started` is its first process's start time in clock ticks since boot.

    Written by hand and not a dataclass, whose module takes longer to load than `state` to answer.
    """

    __slots__ = (
        "annotations", "bundle", "cgroup", "created", "id", "oci_version", "own_pids", "owner", "pid", "rootfs",
        "started",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the spec's word
        bundle: str,
        pid: int = 0,
        started: int = 0,
        oci_version: str = "1.0.0",
        created: str = "",
        rootfs: str = "",
        cgroup: str = "",
        own_pids: bool = True,
        owner: str = "",
        annotations: "Mapping[str, str] | None" = None,
    ) -> None:
        self.id = id
        self.bundle = bundle
        self.pid = pid
        self.started = started
        self.oci_version = oci_version
        self.created = created
        self.rootfs = rootfs
        self.cgroup = cgroup
        self.own_pids = own_pids
        self.owner = owner
        self.annotations = dict(annotations or {})

    def members(self) -> "dict[str, Any]":
        """Return everything as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def with_process(self, pid: int, started: int = 0) -> "Record":
        """Return the same container with another first process."""
        return Record(**{**self.members(), "pid": pid, "started": started})

    def describe(self, status: str) -> "dict[str, Any]":
        """Return the state that the runtime-spec defines (runtime.md, "State")."""
        found: dict[str, Any] = {"ociVersion": self.oci_version, "id": self.id}
        if status != state.STOPPED:
            found["pid"] = self.pid
        return {**found, "status": status, "bundle": self.bundle, "annotations": self.annotations}

    def report(self, status: str) -> "dict[str, Any]":
        """Return the state with what `state` and `list` say besides."""
        first = {"ociVersion": self.oci_version, "id": self.id, "pid": 0}
        more = {"rootfs": self.rootfs, "created": self.created, "owner": self.owner}
        return {**first, **self.describe(status), **more}


def check_id(identifier: str) -> str:
    """Return an id that is one: it becomes the name of a directory. Raises InvalidArgument."""
    if not 0 < len(identifier) <= LONGEST:
        raise InvalidArgument(f"invalid container ID format: it has {len(identifier)} characters, not 1 to {LONGEST}")
    wrong = [at for at, letter in enumerate(identifier) if letter not in (_LATER if at else _FIRST)]
    if wrong:
        raise InvalidArgument(
            f"invalid container ID format: invalid character {identifier[wrong[0]]!r} in container ID {identifier!r}",
            hint="letters, digits, _ + - and, but for the first, .",
        )
    return identifier


def directory(root: str, identifier: str) -> str:
    """Return where a container is kept."""
    return f"{root}/{check_id(identifier)}"


def claim(root: str, identifier: str) -> str:
    """Take an id by making its directory. Raises AlreadyExists."""
    place = directory(root, identifier)
    os.makedirs(root, 0o700, exist_ok=True)
    try:
        os.mkdir(place, 0o711)
    except FileExistsError:
        raise AlreadyExists(f"container with given ID already exists: {identifier}") from None
    return place


def save(place: str, record: Record) -> None:
    """Write the state, whole or not at all. It is in memory (/run): nothing to wait for."""
    temporary = f"{place}/.{STATE}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(plainjson.dumps(record.members()))
    os.replace(temporary, f"{place}/{STATE}")


def save_config(place: str, spec: "Mapping[str, Any]") -> None:
    """Keep the spec as it is now."""
    fd = os.open(f"{place}/{CONFIG}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(plainjson.dumps(spec))


def load(root: str, identifier: str) -> Record:
    """Return a container. Raises NotFound, with the sentence that clients of runc match on."""
    place = directory(root, identifier)
    try:
        with open(f"{place}/{STATE}", encoding="utf-8") as file:
            return Record(**plainjson.loads(file.read()))
    except FileNotFoundError:
        raise NotFound(f"container does not exist: {identifier}") from None
    except (ValueError, TypeError) as error:
        raise DataLoss(f"{place}/{STATE} cannot be read: {error}") from error


def load_config(root: str, identifier: str) -> "dict[str, Any]":
    """Return the spec that a container was created with."""
    return _read(f"{directory(root, identifier)}/{CONFIG}")


def read_spec(path: str, shape: "Mapping[str, Any]") -> "dict[str, Any]":
    """Read a spec, or a part of one, of a stranger's. Raises NotFound, or InvalidArgument naming file or member."""
    from kestrel.oci.runtime_shape import fitted

    found: dict[str, Any] = fitted(_read(path), shape)
    return found


def _read(path: str) -> "dict[str, Any]":
    try:
        with open(path, encoding="utf-8") as file:
            value = plainjson.loads(file.read())
    except FileNotFoundError:
        hint = "`kestrel-runtime spec` makes one" if os.path.basename(path) == CONFIG else None
        raise NotFound(f"JSON specification file {path} not found", hint=hint) from None
    except ValueError as error:
        raise InvalidArgument(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"{path} is not a JSON object")
    return value


def every(root: str) -> list[str]:
    """Return the ids of all containers."""
    try:
        with os.scandir(root) as entries:
            found = [entry.name for entry in entries if entry.name[0] in _FIRST and entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(found)


def forget(root: str, identifier: str) -> None:
    """Remove a container's directory."""
    place = directory(root, identifier)
    try:
        for name in os.listdir(place):
            os.unlink(f"{place}/{name}")
        os.rmdir(place)
    except FileNotFoundError:
        pass


# --- what the kernel says -------------------------------------------------------------------------------------------


def start_time(pid: int) -> int:
    """Return when a process was started, in clock ticks since boot; 0 when it is gone or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            words = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if words[0] in (b"Z", b"X") else int(words[19])


def status(root: str, record: Record) -> str:
    """Return the state a container is in now."""
    if not record.pid:
        return state.CREATING
    if start_time(record.pid) != record.started:
        return state.STOPPED
    if record.cgroup and frozen(record.cgroup):
        return state.PAUSED  # also before its start: who waits at the gate cannot answer
    return state.CREATED if os.path.lexists(f"{directory(root, record.id)}/{GATE}") else state.RUNNING


def frozen(path: str) -> bool:
    """Say whether a group is frozen, without finding out which controllers there are."""
    for name, words in ((f"freezer/{path}/freezer.state", ("FROZEN", "FREEZING")), (f"{path}/cgroup.freeze", ("1",))):
        try:
            with open(f"/sys/fs/cgroup/{name}", encoding="utf-8") as file:
                return file.read().strip() in words
        except OSError:
            continue
    return False


# --- the gate -------------------------------------------------------------------------------------------------------


def make_gate(place: str) -> "sockets.Socket":
    """Return the listening socket at which a container's first process will wait."""
    from kestrel.linux import sockets

    gate = sockets.Socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        gate.bind(f"/proc/self/fd/{fd}/{GATE}")  # a socket's path has 107 bytes at most, a directory's more
        os.chmod(f"{place}/{GATE}", 0o600)
        gate.listen(1)
    except BaseException:
        gate.close()
        raise
    finally:
        os.close(fd)
    return gate


def open_gate(place: str) -> "sockets.Socket | None":
    """Connect to a container that waits, so that nobody else can; None when it does not wait any more."""
    from kestrel.linux import sockets

    connection = sockets.Socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{fd}/{GATE}")
        os.unlink(f"{place}/{GATE}")
    except OSError as error:
        connection.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            return None
        raise
    finally:
        os.close(fd)
    return connection


def enter(record: Record) -> None:
    """Be where hooks are to run: not in the caller's directory, which may be one of a container's (CVE-2025-23266)."""
    try:
        os.chdir(record.bundle)
    except OSError:
        os.chdir("/")  # somebody has removed it already
