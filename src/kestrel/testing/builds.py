"""A builder with all it needs below one directory, for tests: real store, real mounts, commands that really run.

    world = World(tmp_path)
    await world.busybox()
    result = await world.build("FROM busybox\nRUN echo hello")

The executor is a fork, a mount namespace and a chroot: no engine, no network of its own.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from kestrel.archive.entries import Entry, Kind
from kestrel.archive.writer import TarWriter
from kestrel.base.db import Database
from kestrel.base.errors import Unavailable
from kestrel.build import Builder, BuildRequest, Ran, Run
from kestrel.build.events import Event, Log, Started
from kestrel.content import Store
from kestrel.images import ImageService
from kestrel.linux import abi, mounts, syscalls
from kestrel.oci import media_types
from kestrel.oci.config import ContainerDefaults, ImageConfig, RootFS
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.snapshots import Overlay, Snapshotter

APPLETS = (
    "sh cat echo touch mkdir ls id env rm chmod chown sleep true false test stat ln cp wc mv grep seq printf".split()
)


class Forked:
    """A command that was forked, as a `Process`."""

    def __init__(self, pid: int, stream: asyncio.StreamReader, sink: int) -> None:
        self._pid = pid
        self._stream = stream
        self._sink = sink
        self._ending: asyncio.Future[tuple[int, int]] | None = None

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output; both streams are one."""
        data = await self._stream.read(65536)
        return (1, data) if data else None

    async def write(self, data: bytes) -> None:
        """Write to its input."""
        os.write(self._sink, data)

    async def close_stdin(self) -> None:
        """End its input."""
        if self._sink >= 0:
            os.close(self._sink)
        self._sink = -1

    async def resize(self, width: int, height: int) -> None:
        """There is no terminal."""

    async def kill(self, signal_or_name: int | str = signal.SIGKILL) -> None:
        """Send a signal to it and its children."""
        if self._ending is None or not self._ending.done():
            with suppress(ProcessLookupError):
                os.killpg(self._pid, int(signal_or_name))

    async def wait(self) -> int:
        """Return its exit code."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(asyncio.to_thread(os.waitpid, self._pid, 0))
        return os.waitstatus_to_exitcode((await asyncio.shield(self._ending))[1]) & 0xFF

    async def end(self) -> None:
        """Make sure that it is gone."""
        await self.close_stdin()
        await self.kill()
        await asyncio.shield(self.wait())


class Executor:
    """Runs a command in its own mount namespace, chrooted into the snapshot: enough to be real."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.count = 0

    async def run(self, run: Run, output: Callable[[str, bytes], None]) -> Ran:
        """Fork, enter, run, wait."""
        async with self.enter(run, tty=False) as process:
            await process.close_stdin()
            while (chunk := await process.read()) is not None:
                output("stdout", chunk[1])
            return Ran(await process.wait())

    @asynccontextmanager
    async def enter(self, run: Run, *, tty: bool) -> AsyncIterator[Forked]:
        """Fork, enter, and give its streams; there are no terminals here."""
        _ = tty
        self.count += 1
        reader, writer = os.pipe()
        stream = asyncio.StreamReader()
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", 0)
            )
        except BaseException:
            os.close(writer)
            raise
        place = self.scratch / run.id
        place.mkdir()
        stdin, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.close(sink)
            os.dup2(stdin, 0)
            self._child(run, place, writer)
        os.close(writer)
        os.close(stdin)
        process = Forked(pid, stream, sink)
        try:
            yield process
        finally:
            try:
                await process.end()
            finally:
                transport.close()
                place.rmdir()

    def _child(self, run: Run, place: Path, writer: int) -> None:
        try:
            os.setsid()
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            syscalls.unshare(abi.CLONE_NEWNS)
            mounts.set_attributes(os.open("/", os.O_PATH), propagation=abi.MS_PRIVATE, recursive=True)
            root = mounts.open_rootfs(run.rootfs)
            mounts.attach(root, os.open(place, os.O_PATH))
            mounts.attach(mounts.clone("/dev"), mounts.make_directories(root, "/dev"))
            for each in run.mounts:
                if each.kind == "tmpfs":
                    mount = mounts.filesystem("tmpfs")
                    target = mounts.make_directories(root, each.target)
                else:
                    source = each.source
                    if each.rootfs is not None:
                        source = f"/proc/self/fd/{mounts.open_rootfs(each.rootfs)}/{source}"
                    mount = mounts.clone(source)
                    if each.read_only:
                        mounts.set_attributes(mount, add=abi.MOUNT_ATTR_RDONLY)
                    make = mounts.make_directories if os.path.isdir(source) else mounts.make_file
                    target = make(root, each.target)
                mounts.attach(mount, target)
            os.fchdir(root)
            os.chroot(".")
            os.makedirs(run.cwd, exist_ok=True)
            os.chdir(run.cwd)
            if run.user:
                os.setgid(int(run.user))
                os.setuid(int(run.user))
            os.execvpe(run.argv[0], list(run.argv), dict(run.env))
        except BaseException as error:  # noqa: BLE001 - a forked child must never return into the test
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(127)


class NoRegistry:
    """The client of a registry that cannot be reached."""

    def with_credentials(self, _: Any) -> "NoRegistry":
        """The same without credentials."""
        return self

    async def resolve(self, ref: Any) -> Any:
        """Fail as a client without network does."""
        raise Unavailable(f"the registry of {ref.familiar()} cannot be reached")


class World:
    """A builder with everything it needs, and a context to write into."""

    def __init__(self, root: Path, snapshotter: Callable[[Path, Database], Snapshotter] = Overlay) -> None:
        self.root = root
        self.context = root / "context"
        for name in ("context", "content", "builder", "run", "snapshots"):
            (root / name).mkdir()
        self.database = Database(root / "db")
        self.content = Store(root / "content", self.database)
        self.snapshots = snapshotter(root / "snapshots", self.database)
        offline: Any = NoRegistry()
        self.images = ImageService(
            self.content,
            self.snapshots,
            self.database,
            offline,
            offline,
            roots={"build cache": lambda: self.builder.roots()},  # noqa: PLW0108 - the builder comes later
            layer_roots={"build cache": lambda: self.builder.layer_roots()},  # noqa: PLW0108
        )
        self.executor = Executor(root / "run")
        self.builder = self.make_builder()
        self.events: list[Event] = []
        self.said_something = asyncio.Event()

    def make_builder(self) -> Builder:
        """Make a builder on the same store, as a restarted daemon would."""
        return Builder(
            images=self.images,
            content=self.content,
            snapshots=self.snapshots,
            executor=self.executor,
            database=self.database,
            root=self.root / "builder",
        )

    def write(self, **files: str) -> None:
        """Write files of the context; `__` in a name is a slash, `_dot_` a dot."""
        for name, text in files.items():
            self.file(name.replace("__", "/").replace("_dot_", "."), text)

    def file(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write one file of the context."""
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    async def build(self, dockerfile: str, **options: Any) -> Any:
        """Build a Dockerfile with the context, keeping what is told."""
        self.file("Dockerfile", dockerfile)
        self.events.clear()
        return await self.builder.build(BuildRequest(context=self.context, **options), self._hear)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Log):
            self.said_something.set()

    def log(self) -> list[str]:
        """What the commands said."""
        return [event.line for event in self.events if isinstance(event, Log)]

    def ran(self) -> list[str]:
        """The steps that were not reused."""
        return [event.step for event in self.events if isinstance(event, Started)]

    def reasons(self) -> dict[str, str]:
        """Why each step ran."""
        return {event.step: event.reason for event in self.events if isinstance(event, Started)}

    def unpacked(self, result: Any) -> Path:
        """Copy the image's files out, to look at them."""
        place = self.root / f"out-{os.urandom(4).hex()}"
        place.mkdir()
        with mounts.opened(mounts.open_rootfs(self.snapshots.view(self.config(result).rootfs.diff_ids))) as root:
            shutil.copytree(f"/proc/self/fd/{root}/", place, symlinks=True, dirs_exist_ok=True)
        return place

    def config(self, result: Any) -> ImageConfig:
        """The configuration of what was built."""
        return ImageConfig.decode(self.content.read(Digest.parse(result.image_id)))

    async def busybox(self) -> None:
        """Make a base image of the host's static busybox."""
        with self.content.writer() as writer:
            tar = TarWriter(writer)
            for name in ("bin", "etc", "tmp", "root"):
                tar.add(Entry(name=name, kind=Kind.DIRECTORY, mode=0o755))
            data = Path("/bin/busybox").read_bytes()
            tar.add(Entry(name="bin/busybox", mode=0o755, size=len(data)), data)
            for name in APPLETS:
                tar.add(Entry(name=f"bin/{name}", kind=Kind.SYMLINK, link="busybox", mode=0o777))
            passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"
            tar.add(Entry(name="etc/passwd", mode=0o644, size=len(passwd)), passwd)
            group = b"root:x:0:\nstaff:x:50:\n"
            tar.add(Entry(name="etc/group", mode=0o644, size=len(group)), group)
            tar.close()
            digest = writer.commit()
        config = ImageConfig(
            architecture="amd64",
            os="linux",
            created="2024-01-02T03:04:05Z",
            config=ContainerDefaults(env=("PATH=/bin", "BASE=busybox"), cmd=("sh",)),
            rootfs=RootFS(diff_ids=(digest,)),
        ).encode()
        layer = Descriptor(media_type=media_types.OCI_LAYER, digest=digest, size=self.content.size(digest))
        manifest = Manifest.of(Descriptor.of(media_types.OCI_CONFIG, config), (layer,)).encode()
        await self.images.import_image(manifest, config, names=("busybox",))
