"""A build's request, and the files it means: the Dockerfile, the ignore file that goes with it, the contexts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kestrel.base.errors import InvalidArgument, NotFound, nearest
from kestrel.base.files import read_regular
from kestrel.build.executor import Limits
from kestrel.build.leaks import Secret
from kestrel.build.lower_from import Outline
from kestrel.build.outputs import Output
from kestrel.build.tree import Tree
from kestrel.dockerfile import IgnoreList, Program, Source, decode, parse, parse_ignore
from kestrel.dockerfile.errors import DockerfileError

DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
EPOCH = "SOURCE_DATE_EPOCH"
HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
"""The argument that docker has for what a command's host is called; it wins over the request's own word."""
LATEST = 253402300799
"""The last second of the year 9999: an image's configuration has four digits for the year."""
SECONDS = f"it is a number of seconds since 1970, {LATEST} at most"
HOST_NETWORK = "network.host"
"""The one right that can be given to what is built; docker's word for it."""
_LARGEST = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build. `dockerfile` is a path, or the text itself (None: `Dockerfile` in the context); `target` a stage
    (empty: the last).

    A context is a directory, or what `Contexts` brings here; `contexts` are further ones, each in the place of
    whatever the Dockerfile calls by its name. `images` and `times` are the names of contexts that are images, and
    the times (seconds) of those that have one. `source_date_epoch` is the time in seconds that files are clamped
    to; None takes the build argument SOURCE_DATE_EPOCH, else the base image's own time, else 1980-01-01. `network`
    is what RUN gets without a flag of its own, `allow` the rights that it may ask for (HOST_NETWORK). `hosts` are names
    and addresses that RUN finds in /etc/hosts, `hostname` is what its own host is called, `limits` what each RUN may
    use; these alone do not count for the cache. `secrets` maps ids to files, or to the values themselves, `ssh` ids to
    sockets of agents. With `host_users` every RUN has the host's users, as those have anyway that come after a user
    above 65535. `no_cache` runs every step anew, `no_cache_stages` those of some stages. `registries` are the hosts
    that base images may come from, for `Builder.check`; none are all.
    """

    context: Path | str
    dockerfile: Path | bytes | None = None
    tags: tuple[str, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    network: str = "default"
    allow: frozenset[str] = frozenset()
    hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    limits: Limits = field(default_factory=Limits)
    host_users: bool = False
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, Path] = field(default_factory=dict)
    contexts: Mapping[str, Path | str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)
    source_date_epoch: int | None = None
    outputs: tuple[Output, ...] = ()
    registries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A request's files, read: the program, its source, and what the context hides."""

    source: Source
    program: Program
    ignore: IgnoreList
    escape: str


def clamp(request: BuildRequest, read: Read, first: Outline) -> int | None:
    """Return the time files are clamped to: what was asked for, or an ARG before the first FROM; None for the base's.

    `context`, or the name of another one, means the time that it has: a directory of this machine has none. Raises
    InvalidArgument.
    """
    if request.source_date_epoch is not None:
        return request.source_date_epoch
    text = request.build_args.get(EPOCH) or first.global_args.get(EPOCH, "")
    name = "" if text == "context" else text
    if not text or name in request.times or name in ("", *request.contexts):
        return request.times.get(name) if text else None
    if text.isdecimal() and len(text) <= len(str(LATEST)) and int(text) <= LATEST:
        return int(text)
    sentence, hint = f"{EPOCH} is `{text[:40]}`", SECONDS
    if EPOCH in request.build_args:
        raise InvalidArgument(sentence, hint=hint)
    written = next(arg for arg in reversed(read.program.global_args) if EPOCH in dict(arg.pairs))
    raise DockerfileError.at(written.node, sentence, source=read.source, hint=hint)


def in_seconds(args: Mapping[str, str], epoch: int | None) -> dict[str, str]:
    """Return arguments with the time in them as a number, also where a context was named that has it."""
    return {name: str(epoch) if name == EPOCH and epoch is not None else value for name, value in args.items()}


def directory_of(context: Path | str) -> Path:
    """Return the directory that a context is; anything else has been brought here by now. Raises NotFound."""
    path = Path(context)
    if not path.is_dir():
        raise NotFound(f"the context {context} is not a directory", hint="give the directory that COPY reads from")
    return path


def read_files(request: BuildRequest) -> tuple[bytes, str, IgnoreList]:
    """Read the Dockerfile and the ignore file that goes with it; returns its text, its name and the patterns."""
    context = directory_of(request.context)
    if isinstance(request.dockerfile, bytes):
        data = _bounded(request.dockerfile, DOCKERFILE)
        return data, DOCKERFILE, _ignore(context / IGNORE_FILE)  # no file, so none beside it
    path = request.dockerfile or context / DOCKERFILE
    if request.dockerfile is None and not path.exists() and (context / DOCKERFILE.lower()).exists():
        path = context / DOCKERFILE.lower()  # as docker has it
    name = _name(path, context)
    return _load(path, name), name, _ignore(path.with_name(f"{path.name}{IGNORE_FILE}"), context / IGNORE_FILE)


def read_program(request: BuildRequest) -> Read:
    """Read and decode the files of a request."""
    data, name, ignore = read_files(request)
    document = parse(data, name)
    return Read(source=document.source, program=decode(document), ignore=ignore, escape=document.escape)


def _name(path: Path, context: Path) -> str:
    try:
        return str(Path(os.path.realpath(path)).relative_to(os.path.realpath(context)))
    except ValueError:
        return str(path)


def _load(path: Path, name: str) -> bytes:
    try:
        data = read_regular(path, _LARGEST)
    except FileNotFoundError:
        names = os.listdir(path.parent) if path.parent.is_dir() else []
        close = nearest(path.name, names)
        hint = f"did you mean `{close}`?" if close else "name it with --file"
        raise NotFound(f"there is no {path.name} in {path.parent}", hint=hint) from None
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgument(f"cannot read {path}: {reason}", hint="give a file, or `-f -` for your input") from None
    return _bounded(data, name)


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > _LARGEST:
        raise InvalidArgument(f"{name} is larger than {_LARGEST >> 20} MiB", hint="is it a Dockerfile?")
    return data


def _ignore(*files: Path) -> IgnoreList:
    """Read the first of some ignore files that is there: `<Dockerfile>.dockerignore` wins over the context's own."""
    for path in files:
        try:
            data = read_regular(path, _LARGEST)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise InvalidArgument(f"cannot read {path}: {reason}", hint="make it a file, or remove it") from None
        if len(data) > _LARGEST:
            raise InvalidArgument(f"{path} is larger than {_LARGEST >> 20} MiB", hint="is it an ignore file?")
        return parse_ignore(data.decode("utf-8", "surrogateescape"), path.name)
    return IgnoreList()


def open_context(request: BuildRequest, read: Read, name: str) -> Tree:
    """Return a fresh tree of a context by name, the main one's is empty."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if name:
        path = directory_of(request.contexts[name])
        return Tree(os.open(path, flags), name=f"the context `{name}`", ignore=_ignore(path / IGNORE_FILE))
    return Tree(
        os.open(request.context, flags), name="the build context", where=str(request.context), ignore=read.ignore
    )
