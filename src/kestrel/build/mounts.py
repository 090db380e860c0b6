"""What RUN --mount asks for, made ready as files and directories of the host, and put away afterwards.

bind     what is selected, read-only (`shown`); where it may be written to, a private copy that is discarded
cache    a directory kept between builds, by id; `locked` waits for its turn, `private` takes another one if in use
tmpfs    memory
ssh      a socket that leads to an agent of the host, for the owner that is asked for
secret   a file only root of this host can read, gone after the step; never part of a key or a layer
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kestrel.base.errors import NotFound, nearest
from kestrel.base.files import private_directory
from kestrel.build.agents import Agent
from kestrel.build.collect import MOUNT, Held, directories, remember, remove
from kestrel.build.copy import Writer
from kestrel.build.executor import Limits, RunMount
from kestrel.build.gather import Gathering
from kestrel.build.graph import Execute, MountInput
from kestrel.build.leaks import Needle, Secret, value_of
from kestrel.build.lower_run import SCRIPT_DIRECTORY
from kestrel.build.threads import finished
from kestrel.dockerfile.instructions import Mount

_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the request hands to commands: by id secrets and sockets of ssh agents; what each may use."""

    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    wanted: tuple[Needle, ...] = field(default=(), repr=False)
    """What no layer may hold."""
    ssh: Mapping[str, Path] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    host_users: bool = False
    """Whether commands have the host's users, for there are some beyond those of a sandbox's range."""
    renewed: set[str] | None = None
    """Caches that this build has begun anew; None when it takes them as they are. A build without cache starts each
    cache over, once, as docker does."""


class Mounts:
    """Owns the directories below `root` (kept: caches) and `scratch` (emptied at start)."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self._caches = private_directory(root / "caches")
        self._scratch = private_directory(scratch)
        self._locks: dict[str, asyncio.Lock] = {}
        self._busy: set[Path] = set()
        self.clear()

    def clear(self) -> None:
        """Remove what a killed build left; only to be called when none runs."""
        for item in (*self._scratch.iterdir(), *self._caches.glob(f"{_UNFINISHED}*")):
            shutil.rmtree(item, ignore_errors=True)

    def held(self) -> list[Held]:
        """Return the caches, for a collection."""
        return list(directories(self._caches, MOUNT, frozenset(self._busy)))

    async def drop(self, path: Path) -> None:
        """Remove a cache unless a command uses it."""
        if path not in self._busy and path.exists():
            doomed = self._unfinished(path)
            path.rename(doomed)  # at once: whoever takes a cache does so on this event loop
            remove(path)
            await finished(shutil.rmtree, doomed, True)

    @staticmethod
    def _unfinished(path: Path) -> Path:
        """Return a name beside a cache for one that is not there yet, or not any more."""
        return path.with_name(f"{_UNFINISHED}{path.name}-{os.urandom(4).hex()}")

    @asynccontextmanager
    async def prepared(
        self,
        name: str,
        operation: Execute,
        gatherings: Mapping[int, Gathering],
        given: Given,
        epoch: int,
        show: Callable[[Gathering, Mount, ExitStack], RunMount | None],
    ) -> AsyncIterator[tuple[tuple[RunMount, ...], dict[str, str]]]:
        """Give the mounts of a step, and environment variables that secrets asked for.

        `show` gives what a bind mount shows, None to have it copied.
        """
        directory = self._scratch / name
        stack = ExitStack()
        locks: list[asyncio.Lock] = []
        taken: list[Path] = []
        env: dict[str, str] = {}
        agents: list[Agent] = []
        try:
            directory.mkdir(0o700)
            ready: list[RunMount] = []
            for number, item in enumerate(operation.mounts):
                place = directory / str(number)
                if item.mount.type == "bind":
                    shown = await finished(show, gatherings[number], item.mount, stack)
                    if shown is None:
                        source = await finished(_materialise, gatherings[number], place, item.mount, epoch)
                        read_only = item.mount.read_only
                        shown = RunMount(target=item.mount.target, source=source, read_only=read_only)
                    ready.append(shown)
                elif item.mount.type == "cache":
                    seed = gatherings.get(number)
                    ready.append(await self._cache(item.mount, locks, taken, seed, epoch, given.renewed))
                elif item.mount.type == "ssh":
                    agent = await _agent(item.mount, given.ssh, place)
                    if agent is not None:
                        agents.append(agent)
                        target = item.mount.target or f"/run/buildkit/ssh_agent.{len(agents) - 1}"
                        env.setdefault("SSH_AUTH_SOCK", target)
                        ready.append(RunMount(target=target, source=str(place), read_only=True))
                elif item.mount.type == "tmpfs":
                    ready.append(
                        RunMount(
                            target=item.mount.target,
                            kind="tmpfs",
                            size=item.mount.size,
                            read_only=item.mount.read_only,
                        )
                    )
                else:
                    ready.extend(_secret(item, given.secrets, place, env))
            if operation.script:
                ready.append(_script(operation, directory / "script"))
            yield tuple(ready), env
        finally:
            for agent in agents:
                await agent.close()
            for lock in locks:
                lock.release()
            self._busy.difference_update(taken)
            stack.close()
            await finished(shutil.rmtree, directory, True)

    async def _cache(
        self,
        mount: Mount,
        locks: list[asyncio.Lock],
        taken: list[Path],
        seed: Gathering | None,
        epoch: int,
        renewed: set[str] | None,
    ) -> RunMount:
        path = self._caches / hashlib.sha256(mount.id.encode()).hexdigest()[:32]
        if mount.sharing == "locked":
            lock = self._locks.setdefault(mount.id, asyncio.Lock())
            await lock.acquire()
            locks.append(lock)
        elif mount.sharing == "private":
            base, number = path, 1
            while path in self._busy:
                number += 1
                path = base.with_name(f"{base.name}.{number}")
        if renewed is not None and mount.id not in renewed:
            renewed.add(mount.id)
            if path not in self._busy and path.exists():  # never from under a command of another build
                doomed = self._unfinished(path)
                path.rename(doomed)
                await finished(shutil.rmtree, doomed, True)
        taken.append(path)
        self._busy.add(path)
        remember(path, mount.id)
        if not path.exists():
            await self._begin(path, seed, mount, epoch)
        return RunMount(target=mount.target, source=str(path), read_only=mount.read_only)

    async def _begin(self, path: Path, seed: Gathering | None, mount: Mount, epoch: int) -> None:
        """Make a cache's directory, with what it begins with; it appears only when it is whole."""
        new = made = self._unfinished(path)
        uid, gid, mode = 0, 0, 0o755
        try:
            if seed is None:
                new.mkdir()
            else:
                made = Path(await finished(_materialise, seed, new, mount, epoch))
                top = seed.sources()[1][0].entries[0]
                uid, gid, mode = top.uid, top.gid, top.mode
            os.chown(made, uid if mount.uid is None else mount.uid, gid if mount.gid is None else mount.gid)
            made.chmod(mode if mount.mode is None else mount.mode)
            if not path.exists():  # another command may have been quicker
                made.rename(path)
        finally:
            await finished(shutil.rmtree, new, True)


async def _agent(mount: Mount, given: Mapping[str, Path], place: Path) -> Agent | None:
    socket = given.get(mount.id)
    if socket is None:
        if mount.required:
            raise NotFound(f"the ssh agent `{mount.id}` was not given", hint=f"give it with --ssh {mount.id}")
        return None
    mode = 0o600 if mount.mode is None else mount.mode
    return await Agent.open(place, socket, mode=mode, owner=(mount.uid or 0, mount.gid or 0))


def _materialise(gathering: Gathering, place: Path, mount: Mount, epoch: int) -> str:
    """Copy what a bind mount shows into a directory of its own."""
    tree, sources = gathering.sources()
    place.mkdir(0o755)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    writer = Writer(fd, epoch=epoch)
    try:
        for source in sources:
            writer.place(tree, source, "/content", as_directory=False)
    finally:
        writer.close()
        os.close(fd)
    if mount.source != "/" and not sources:
        raise NotFound(f"`{mount.source.lstrip('/')}` is not in {tree.name}")
    return str(place / "content")


def _secret(item: MountInput, secrets: Mapping[str, Secret], place: Path, env: dict[str, str]) -> list[RunMount]:
    mount = item.mount
    if mount.id not in secrets:
        if not mount.required:
            return []
        raise NotFound(f"the secret `{mount.id}` was not given", hint=_secret_hint(mount.id, secrets))
    data = value_of(mount.id, secrets[mount.id])
    if mount.env:
        env[mount.env] = data.decode("utf-8", "surrogateescape")
    if not mount.target:
        return []
    _write(place, data, 0o400 if mount.mode is None else mount.mode)
    os.chown(place, mount.uid or 0, mount.gid or 0)
    return [RunMount(target=mount.target, source=str(place), read_only=True)]


def _secret_hint(name: str, secrets: Mapping[str, Secret]) -> str:
    close = nearest(name, secrets)
    return f"did you mean `{close}`?" if close else f"give it with --secret id={name},src=FILE"


def _script(operation: Execute, place: Path) -> RunMount:
    place.mkdir(0o755)
    name = operation.argv[0].rpartition("/")[2]
    _write(place / name, operation.script.encode("utf-8", "surrogateescape"), 0o755)
    return RunMount(target=SCRIPT_DIRECTORY, source=str(place), read_only=True)


def _write(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    path.chmod(mode)
