"""A build as data: stages made of steps, each step an operation on the filesystem another one left.

A plan is made before anything runs. It holds no reference to the Dockerfile's variables, so it can be printed,
compared and tested without a kernel; the solver carries out those steps that the target needs.

    Filesystem = Origin (an image's layers, or nothing) | Step (what its operation leaves)
"""

from dataclasses import dataclass, field

from kestrel.dockerfile.gitref import GitRef
from kestrel.dockerfile.instructions import Mount
from kestrel.dockerfile.nodes import Range, Source
from kestrel.oci.config import ContainerDefaults, ImageConfig
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The layers of a base image, the bottom first; none for `scratch`."""

    name: str
    layers: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The build context, or another directory given with the request by `name`."""

    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inline:
    """Files written in the Dockerfile itself: (name, content)."""

    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file behind a URL; `checksum` is empty or the digest it must have."""

    url: str
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A git repository at a reference."""

    source: GitRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an instruction stands, for messages."""

    source: Source
    range: Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute:
    """RUN. `env` is what the command sees; names in `unkeyed` do not count for the cache (proxies).

    `script` is a here-document to be run as a file.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    user: str
    network: str
    hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    mounts: tuple["MountInput", ...] = ()
    script: str = ""
    unkeyed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class MountInput:
    """A `--mount` with where its content comes from; None for what needs no source."""

    mount: Mount
    origin: "Origin | Step | Context | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a COPY takes from one origin."""

    origin: "Origin | Step | Context | Inline | Remote | Repository"
    patterns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    parents: bool = False
    unpack: bool = False
    """Local archives are unpacked (ADD)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFiles:
    """COPY and ADD. `destination` is absolute; `as_directory` if it was written with a slash at the end."""

    selections: tuple[Selection, ...]
    destination: str
    as_directory: bool
    chown: str = ""
    chmod: str = ""
    link: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory:
    """WORKDIR: the directory exists afterwards; what has to be made belongs to `user` (empty: root)."""

    path: str
    user: str = ""


Operation = Execute | CopyFiles | MakeDirectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One operation on `parent`. Steps are compared by identity; equal work is found by key, not here.

    `epoch` is the time in seconds that files are clamped to.
    """

    id: str
    title: str
    stage: str
    place: Place
    parent: "Filesystem"
    operation: Operation
    epoch: int

    def inputs(self) -> "tuple[Filesystem, ...]":
        """Return every filesystem the step reads, its parent first."""
        others: list[Filesystem] = []
        if isinstance(self.operation, CopyFiles):
            others = [s.origin for s in self.operation.selections if isinstance(s.origin, Origin | Step)]
        elif isinstance(self.operation, Execute):
            others = [m.origin for m in self.operation.mounts if isinstance(m.origin, Origin | Step)]
        return (self.parent, *others)


Filesystem = Origin | Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of an image's history; `step` None means that it left no layer."""

    created_by: str
    step: Step | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """What a stage amounts to: a filesystem, a configuration, and how both came about."""

    index: int
    name: str
    base: "BaseImage | None"
    filesystem: Filesystem
    config: ContainerDefaults
    history: tuple[Record, ...]
    epoch: int
    author: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """What the planner and the export must know of an image: its configuration, and its layers as blobs."""

    name: str
    image: ImageConfig
    blobs: tuple[Descriptor, ...] = ()

    @property
    def layers(self) -> tuple[Digest, ...]:
        """The layers by diff_id, the bottom first."""
        return self.image.rootfs.diff_ids

    @property
    def config(self) -> ContainerDefaults:
        """What containers of it start with."""
        return self.image.config

    @property
    def created(self) -> int:
        """Whole seconds since the epoch; 0 when the image does not say."""
        moment = self.image.created_at
        return max(0, int(moment.timestamp())) if moment is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The target and every step it needs, in an order in which they could run."""

    target: PlannedStage
    steps: tuple[Step, ...]
    stages: tuple[PlannedStage, ...]
    warnings: tuple[str, ...] = field(default=())


def needed(filesystem: Filesystem) -> tuple[Step, ...]:
    """Return the steps that lead to a filesystem, each after those it reads."""
    order: list[Step] = []
    seen: set[Step] = set()
    stack: list[tuple[Filesystem, bool]] = [(filesystem, False)]
    while stack:
        item, ready = stack.pop()
        if not isinstance(item, Step) or (item in seen and not ready):
            continue
        if ready:
            order.append(item)
            continue
        seen.add(item)
        stack.append((item, True))
        stack.extend((each, False) for each in reversed(item.inputs()))
    return tuple(order)
