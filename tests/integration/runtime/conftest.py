"""A sandbox to try the runtime in: a root filesystem of busybox alone, a zygote, a shim, and nothing left behind."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kestrel.engine.shims import Exited, LogFile, SandboxRequest, Shim, Zygote
from kestrel.linux import cgroups
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import default_seccomp, default_spec

BUSYBOX = "/bin/busybox"


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Wait until something outside of this process has happened."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def layer() -> Iterator[Path]:
    """A layer with busybox and its names, a passwd file and /tmp."""
    if os.geteuid() or not os.path.exists(BUSYBOX):
        pytest.skip("needs root and a static /bin/busybox")
    top = Path(tempfile.mkdtemp(prefix="ktest-layer-"))
    top.chmod(0o755)
    for name in ("bin", "etc", "tmp", "proc", "home"):
        (top / name).mkdir()
    (top / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    for name in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (top / "bin" / name).symlink_to("busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    yield top
    shutil.rmtree(top)


@dataclass
class Box:
    """A sandbox and what tests do with it."""

    directory: Path
    layer: Path
    shim: Shim
    zygote: Zygote
    cgroup: str
    seen: list[Any] = field(default_factory=list)

    def rootfs(self, name: str) -> Rootfs:
        """Return a writable root of its own for a container."""
        for part in ("upper", "work"):
            (self.directory / name / part).mkdir(parents=True, exist_ok=True)
        (self.directory / name / "upper").chmod(0o755)
        return Rootfs(
            lowers=(Lower(path=str(self.layer)),),
            upper=str(self.directory / name / "upper"),
            work=str(self.directory / name / "work"),
        )

    def spec(self, *args: str, **linux: Any) -> dict[str, Any]:
        """Return the default spec with a shell script or arguments, and the default seccomp profile."""
        spec = default_spec(args if len(args) > 1 else ("sh", "-c", *args))
        spec["linux"]["seccomp"] = default_seccomp()
        spec["linux"].update(linux)
        return spec

    def request(self, name: str) -> SandboxRequest:
        """Return the request for another sandbox."""
        return SandboxRequest(id=name, directory=str(self.directory / name), cgroup=f"{self.cgroup}/{name}")

    async def create(self, name: str, spec: dict[str, Any], **options: Any) -> int:
        """Create a container with a log."""
        options.setdefault("log", LogFile(path=str(self.log(name))))
        options.setdefault("cgroup", f"{self.cgroup}/{name}")
        options.setdefault("rootfs", self.rootfs(name))
        return await self.shim.create(name, spec, **options)

    async def start(self, name: str, spec: dict[str, Any], **options: Any) -> int:
        """Create and start."""
        pid = await self.create(name, spec, **options)
        await self.shim.start(name)
        return pid

    async def run(self, name: str, spec: dict[str, Any], **options: Any) -> tuple[int, str]:
        """Run to the end; return exit code and output."""
        await self.start(name, spec, **options)
        ended = await self.ended(name)
        return ended.exit_code, self.output(name)

    async def script(self, text: str, **linux: Any) -> str:
        """Run a shell script in a new container that must succeed; return its output."""
        name = f"c{len(os.listdir(self.directory))}"
        code, output = await self.run(name, self.spec(text, **linux))
        assert code == 0, output
        return output

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something outside of this process has happened."""
        await until(condition)

    async def ended(self, name: str, timeout: float = 10) -> Exited:
        """Wait for a container's end."""
        async with asyncio.timeout(timeout):
            return await self.shim.wait(name)

    def log(self, name: str) -> Path:
        """Return the path of a container's log."""
        return self.directory / f"{name}.log"

    def output(self, name: str, stream: str = "") -> str:
        """Return what a container has written, without the log's framing."""
        text = ""
        for line in self.log(name).read_text().splitlines():
            _, where, tag, content = [*line.split(" ", 3), ""][:4]
            if stream in ("", where):
                text += content + ("\n" if tag == "F" else "")
        return text


@pytest.fixture
async def zygote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Zygote]:
    """A zygote; compiled filters are kept between tests."""
    cache = Path(tempfile.gettempdir()) / "ktest-runtime-cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    started = await Zygote.start(cache)
    yield started
    await started.close()


@pytest.fixture(params=[60.0, 0.003], ids=["awake", "resting"])
async def make_box(layer: Path, zygote: Zygote, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Make sandboxes that are gone after the test, whatever happened; in some the shim rests whenever it can."""
    boxes: list[Box] = []
    rest_after = request.param

    async def make(**wishes: Any) -> Box:
        directory = Path(tempfile.mkdtemp(prefix="ktest-box-"))
        cgroup = f"kestrel-test-{directory.name}"
        given = {"hostname": "box", "rest_after": rest_after, **wishes}
        wanted = SandboxRequest(id="box", directory=str(directory), cgroup=cgroup, **given)
        box = Box(directory=directory, layer=layer, shim=await zygote.shim(wanted), zygote=zygote, cgroup=cgroup)
        boxes.append(box)
        return box

    yield make
    for box in boxes:
        await box.shim.shutdown()
        cgroups.destroy(box.cgroup)
        log = box.directory / "shim.log"
        said = log.read_text() if log.exists() else ""
        shutil.rmtree(box.directory)
        assert "Traceback" not in said, said


@pytest.fixture
async def box(make_box: Any) -> Box:
    """One sandbox with namespaces of its own."""
    made: Box = await make_box()
    return made


# --- the command ------------------------------------------------------------------------------------------------------

SOURCE = Path(__file__).parents[3] / "src"
PROGRAM = f"import sys; sys.path.append({str(SOURCE)!r}); from kestrel.runtime.main import main; main()"


@dataclass
class Command:
    """`kestrel-runtime` with a root of its own, and a bundle."""

    line = (sys.executable, "-I", "-S", "-c", PROGRAM)
    home: Path
    bundle: Path
    cgroup: str

    def __call__(self, *words: str, stdin: str = "", cwd: "Path | None" = None) -> "subprocess.CompletedProcess[str]":
        # Output goes to files: what a detached container inherits would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [*self.line, "--root", str(self.home / "state"), *words],
                stdout=out, stderr=err, text=True,
                timeout=30, cwd=cwd, input=stdin,
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def ok(self, *words: str, stdin: str = "") -> str:
        done = self(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", name))
        return found

    def spec(self, *args: str, **changes: Any) -> None:
        """Write the bundle's config."""
        (self.bundle / "config.json").unlink(missing_ok=True)
        self.ok("spec", "--bundle", str(self.bundle))
        spec = json.loads((self.bundle / "config.json").read_text())
        spec["process"].update(args=list(args), terminal=False)
        spec["root"]["readonly"] = False
        spec["linux"]["cgroupsPath"] = f"/{self.cgroup}"
        spec["process"].update(changes.pop("process", {}))
        spec["linux"].update(changes.pop("linux", {}))
        spec.update(changes)
        (self.bundle / "config.json").write_text(json.dumps(spec))

    def until(self, name: str, status: str) -> dict[str, Any]:
        due = time.monotonic() + 10
        while time.monotonic() < due:
            found = self.state(name)
            if found["status"] == status:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{name} did not become {status}: {found}")


@pytest.fixture
def runtime(layer: Path) -> Iterator[Command]:
    home = Path(tempfile.mkdtemp(prefix="ktest-command-"))
    bundle = home / "bundle"
    bundle.mkdir()
    shutil.copytree(layer, bundle / "rootfs", symlinks=True)
    command = Command(home, bundle, f"kestrel-test-{os.getpid()}")
    command.spec("sleep", "60")
    yield command
    for entry in json.loads(command.ok("list", "--format", "json")) if (home / "state").exists() else ():
        command("delete", "--force", entry["id"])
    shutil.rmtree(home)
