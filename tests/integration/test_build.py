"""Real builds: real files, real overlay mounts, and commands that really run in the step's root."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kestrel.archive.apply import apply
from kestrel.archive.entries import Entry, Kind
from kestrel.archive.trees import remove_tree
from kestrel.archive.writer import TarWriter
from kestrel.base.db import Database
from kestrel.base.errors import KestrelError, NotFound, Unavailable
from kestrel.build import Builder, BuildRequest, Run, RunFailed
from kestrel.build.events import Event, Log, Started
from kestrel.content import Store
from kestrel.dockerfile import DockerfileError
from kestrel.linux import abi, mounts, syscalls
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci import media_types
from kestrel.oci.config import ContainerDefaults, ImageConfig, RootFS
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

APPLETS = "sh cat echo touch mkdir ls id env rm chmod chown sleep true false test stat ln cp wc mv grep seq printf".split()


class Executor:
    """Runs a command in its own mount namespace, chrooted into the snapshot: enough to be real."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.count = 0

    async def run(self, run: Run, output: Callable[[str, bytes], None]) -> int:
        self.count += 1
        place = self.scratch / run.id
        place.mkdir()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._child(run, place, writer)
        os.close(writer)
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), open(reader, "rb", 0))
        try:
            while data := await stream.read(65536):
                output("stdout", data)
            return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) & 0xFF
        except asyncio.CancelledError:
            os.killpg(pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, pid, 0)
            raise
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
            for each in run.mounts:
                if each.kind == "tmpfs":
                    mount = mounts.filesystem("tmpfs")
                    target = mounts.make_directories(root, each.target)
                else:
                    mount = mounts.clone(each.source)
                    if each.read_only:
                        mounts.set_attributes(mount, add=abi.MOUNT_ATTR_RDONLY)
                    make = mounts.make_directories if os.path.isdir(each.source) else mounts.make_file
                    target = make(root, each.target)
                mounts.attach(mount, target)
            os.fchdir(root)
            os.chroot(".")
            os.chdir(run.cwd)
            if run.user:
                os.setgid(int(run.user))
                os.setuid(int(run.user))
            os.execvpe(run.argv[0], list(run.argv), dict(run.env))
        except BaseException as error:  # noqa: BLE001 - a forked child must never return into the test
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(127)


class Snapshots:
    """Overlay directories, as the store's snapshotter keeps them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("layers", "tops"):
            (root / name).mkdir(parents=True)

    def _layer(self, diff_id: Digest) -> Path:
        return self.root / "layers" / diff_id.hex

    def has_layer(self, diff_id: Digest) -> bool:
        return self._layer(diff_id).exists()

    def add_layer(self, diff_id: Digest, tar: Any) -> None:
        temporary = self.root / "layers" / f"tmp-{os.urandom(4).hex()}"
        temporary.mkdir()
        apply(tar, temporary)
        temporary.rename(self._layer(diff_id))

    def view(self, layers: Any) -> Rootfs:
        return Rootfs(lowers=tuple(Lower(path=str(self._layer(each))) for each in reversed(layers)))

    def prepare(self, key: str, layers: Any) -> Rootfs:
        top = self.root / "tops" / key
        for name in ("upper", "work", "empty"):
            (top / name).mkdir(parents=True)
        lowers = self.view(layers).lowers or (Lower(path=str(top / "empty")),)
        return Rootfs(lowers=lowers, upper=str(top / "upper"), work=str(top / "work"))

    def remove(self, key: str) -> None:
        remove_tree(self.root / "tops" / key)

    def keys(self) -> list[str]:
        return os.listdir(self.root / "tops")


class Image:
    def __init__(self, manifest: bytes, config: bytes) -> None:
        self.manifest, self.digest, self.id = Manifest.decode(manifest), Digest.of(manifest), Digest.of(config)
        self.config = ImageConfig.decode(config)


class Images:
    """A store of images without a registry."""

    def __init__(self, content: Store, snapshots: Snapshots) -> None:
        self.content, self.snapshots = content, snapshots
        self.images: dict[str, Image] = {}

    async def resolve(self, name: str) -> Image:
        if name not in self.images:
            raise NotFound(f"no such image: {name}")
        return self.images[name]

    async def pull(self, name: str, *, progress: Any = None) -> Image:
        raise Unavailable(f"the registry of {name} cannot be reached")

    async def ensure_unpacked(self, image: Image) -> None:
        for diff_id, blob in zip(image.config.rootfs.diff_ids, image.manifest.layers, strict=True):
            if not self.snapshots.has_layer(diff_id):
                with self.content.open(blob.digest) as tar:
                    self.snapshots.add_layer(diff_id, tar)

    async def import_image(self, manifest: bytes, config: bytes, *, names: tuple[str, ...] = ()) -> Image:
        image = Image(manifest, config)
        self.content.put(manifest)
        self.content.put(config)
        for name in (*names, str(image.id)):
            self.images[name] = image
        return image


class World:
    """A builder with everything it needs, and a context to write into."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context = root / "context"
        for name in ("context", "content", "builder", "run"):
            (root / name).mkdir()
        self.database = Database(root / "db")
        self.content = Store(root / "content", self.database)
        self.snapshots = Snapshots(root / "snapshots")
        self.images = Images(self.content, self.snapshots)
        self.executor = Executor(root / "run")
        self.builder = Builder(
            images=self.images,
            content=self.content,
            snapshots=self.snapshots,
            executor=self.executor,
            database=self.database,
            root=root / "builder",
        )
        self.events: list[Event] = []

    def write(self, **files: str) -> None:
        for name, text in files.items():
            self.file(name.replace("__", "/").replace("_dot_", "."), text)

    def file(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    async def build(self, dockerfile: str, **options: Any) -> Any:
        self.file("Dockerfile", dockerfile)
        self.events.clear()
        return await self.builder.build(BuildRequest(context=self.context, **options), self.events.append)

    def log(self) -> list[str]:
        return [event.line for event in self.events if isinstance(event, Log)]

    def ran(self) -> list[str]:
        return [event.step for event in self.events if isinstance(event, Started)]

    def reasons(self) -> dict[str, str]:
        return {event.step: event.reason for event in self.events if isinstance(event, Started)}

    def unpacked(self, result: Any) -> Path:
        """Copy the image's files out, to look at them."""
        image = self.images.images[str(result.image_id)]
        place = self.root / f"out-{os.urandom(4).hex()}"
        place.mkdir()
        for diff_id in image.config.rootfs.diff_ids:
            source = self.snapshots._layer(diff_id)
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        return place

    def config(self, result: Any) -> ImageConfig:
        return self.images.images[str(result.image_id)].config

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


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    assert made.snapshots.keys() == []  # whatever happened, no writable root is left
    assert os.listdir(tmp_path / "run") == []
    assert os.listdir(tmp_path / "builder" / "scratch") == []
    made.database.close()


async def test_a_build_runs_commands_and_copies_files(world: World) -> None:
    world.write(app_dot_py="print('hello')\n")
    result = await world.build(
        "FROM busybox\nWORKDIR /app\nCOPY app.py .\nRUN cat app.py > copy && echo done\n"
        'ENV MODE=test\nEXPOSE 80\nCMD ["cat", "copy"]\n',
        tags=("app:1",),
    )
    files = world.unpacked(result)
    assert (files / "app/copy").read_text() == "print('hello')\n"
    assert world.log() == ["done"]
    config = world.config(result)
    assert config.config.cmd == ("cat", "copy")
    assert config.config.env == ("PATH=/bin", "BASE=busybox", "MODE=test")
    assert config.config.working_dir == "/app"
    assert "app:1" in world.images.images
    assert len(config.rootfs.diff_ids) == sum(not line.empty_layer for line in config.history)


async def test_a_second_build_reuses_everything_and_gives_the_same_digest(world: World) -> None:
    world.write(a="1")
    first = await world.build("FROM busybox\nCOPY a /a\nRUN cat a > b\n")
    os.utime(world.context / "a", (1, 1))
    second = await world.build("FROM busybox\nCOPY a /a\nRUN cat a > b\n")
    assert world.ran() == []
    assert second.digest == first.digest
    assert all(step.cached for step in second.steps)
    assert world.executor.count == 1
