"""Any OCI runtime as a test's subject, driven by its words: `kestrel-runtime`, runc, crun, or a program at a path.

    with Runtime.find("runc") as runtime, Bundle.make() as bundle:
        assert runtime.run(bundle.shell("id -u")).out == "0\\n"

What is run is a copy of the program (for ours, of the interpreter), so that an attack on it which works harms nothing.
Roots, states and control groups are the test's own, and gone after it. A bundle's container has busybox, and through
a read-only mount of /usr also the host's Python, which attackers are written in.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kestrel.base.errors import FailedPrecondition
from kestrel.linux import abi, cgroups, syscalls
from kestrel.oci.runtime_defaults import default_seccomp, default_spec

OURS = "kestrel-runtime"
BUSYBOX = Path("/bin/busybox")
PYTHON = "/usr/bin/python3"
SOURCE = Path(__file__).parents[2]
TIMEOUT = 60.0  # seconds a command may take


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


def busybox_root(top: Path) -> None:
    """Fill a directory with busybox and its names, /tmp, and the directories that mounts go on."""
    if os.geteuid() or not BUSYBOX.exists():
        raise FailedPrecondition("needs root and a static /bin/busybox", hint="apt-get install busybox-static")
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "home", "usr"):
        (top / name).mkdir()
    (top / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    for name in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (top / "bin" / name).symlink_to("busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    for name in os.listdir("/"):
        if name.startswith("lib") and os.path.islink(f"/{name}"):
            (top / name).symlink_to(os.readlink(f"/{name}"))


@dataclass
class Bundle:
    """A bundle directory. `spec` is written to its config.json when a runtime is given the bundle."""

    home: Path
    spec: dict[str, Any]

    @classmethod
    @contextmanager
    def make(cls, layer: Path) -> Iterator[Self]:
        """Give a bundle with a copy of `layer` as its root; it is removed at the end."""
        home = Path(tempfile.mkdtemp(prefix="ktest-bundle-"))
        home.chmod(0o755)
        try:
            subprocess.run(["cp", "-a", layer, home / "rootfs"], check=True)  # four hundred links, in no time
            yield cls(home=home, spec=specification(f"kestrel-{home.name}"))
        finally:
            cgroups.destroy(f"kestrel-{home.name}")  # of a command that hung and was killed, the container lives on
            shutil.rmtree(home)

    @property
    def rootfs(self) -> Path:
        """The container's root on the host."""
        return self.home / "rootfs"

    def write(self) -> Path:
        """Write config.json; returns the bundle's directory."""
        new = self.home / f".{secrets.token_hex(4)}"
        new.write_text(json.dumps(self.spec))
        new.replace(self.home / "config.json")
        return self.home

    def arguments(self, *words: str) -> Self:
        """Have it run a program."""
        self.spec["process"]["args"] = list(words)
        return self

    def shell(self, script: str) -> Self:
        """Have it run a script of busybox's shell."""
        return self.arguments("sh", "-c", script)

    def python(self, program: str) -> Self:
        """Have it run a Python program."""
        self.with_python()
        return self.arguments(PYTHON, "-IS", "-c", program)

    def with_python(self) -> Self:
        """Let it have the host's Python, with everything else in /usr."""
        if not any(mount["destination"] == "/usr" for mount in self.spec["mounts"]):
            self.bind("/usr", "/usr", "ro")
        return self

    def bind(self, source: "Path | str", destination: str, *options: str) -> None:
        """Mount a directory of the host."""
        mount = {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}
        self.spec["mounts"].append(mount)

    def without_mounts(self, *destinations: str) -> None:
        """Leave mounts out."""
        kept = [mount for mount in self.spec["mounts"] if mount["destination"] not in destinations]
        self.spec["mounts"] = kept


def specification(cgroup: str) -> dict[str, Any]:
    """Return what Kestrel's engine gives containers by default, the namespaces of a sandbox included."""
    spec = default_spec(namespaces=("pid", "mount", "cgroup", "network", "ipc", "uts"))
    spec["ociVersion"] = "1.0.2"  # the newest that every runtime knows
    spec["root"] = {"path": "rootfs"}
    spec["linux"]["seccomp"] = default_seccomp()
    spec["linux"]["cgroupsPath"] = f"/{cgroup}"
    return spec


@dataclass
class Runtime:
    """A runtime. `command` begins every command line; `home` holds its copy and its state."""

    name: str
    home: Path
    command: tuple[str, ...]
    program: Path
    mounts: int = -1
    """Its mount namespace, a descriptor, when it has one of its own."""
    running: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def find(cls, name: str) -> Iterator[Self]:
        """Give a runtime by name or path. Its containers are deleted at the end."""
        home = Path(tempfile.mkdtemp(prefix="ktest-runtime-"))
        home.chmod(0o755)
        try:
            made = cls._ours(home) if name == OURS else cls._other(home, name)
            try:
                yield made
            finally:
                made.clean()
                if made.mounts >= 0:
                    os.close(made.mounts)
        finally:
            shutil.rmtree(home)

    @classmethod
    def _ours(cls, home: Path) -> Self:
        interpreter, script = home / "python3", home / OURS
        shutil.copy(os.path.realpath(sys.executable), interpreter)
        lines = (f"#!{interpreter} -IS", "import sys", f"sys.path.append({str(SOURCE)!r})")
        script.write_text("\n".join((*lines, "from kestrel.runtime.main import main", "main()", "")))
        script.chmod(0o755)
        return cls(OURS, home, (str(script),), interpreter)

    @classmethod
    def _other(cls, home: Path, name: str) -> Self:
        found = shutil.which(name)
        if found is None:
            raise FailedPrecondition(f"there is no runtime {name}", hint=f"apt-get install {name}, or give a path")
        program = home / Path(name).name
        shutil.copy(os.path.realpath(found), program)
        return cls(program.name, home, (str(program),), program, _unified() if "crun" in program.name else -1)

    def __call__(
        self,
        *words: str,
        stdin: str = "",
        cwd: "Path | None" = None,
        env: "Mapping[str, str] | None" = None,
        groups: Sequence[int] = (),
        descriptors: Sequence[int] = (),
        timeout: float = TIMEOUT,
    ) -> Answer:
        """Run a command to its end. Output goes to files: what lives on would keep a pipe open."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                self.words(*words), stdout=out, stderr=err, input=stdin.encode(), cwd=cwd, env=env, timeout=timeout,
                preexec_fn=self.enter, pass_fds=descriptors, extra_groups=groups or None, check=False,
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            answer = Answer(done.returncode, *(file.read().decode(errors="replace") for file in (out, err)))
        assert "Traceback (most recent" not in answer.err, f"{self.name} has not refused but crashed: {answer.err}"
        return answer

    def words(self, *words: str) -> list[str]:
        """Return a whole command line."""
        return [*self.command, "--root", str(self.home / "state"), *words]

    def enter(self) -> None:
        """Be where the runtime is to run; called in its process before it is executed."""
        if self.mounts >= 0:
            syscalls.setns(self.mounts, abi.CLONE_NEWNS)

    def run(self, bundle: Bundle, *options: str, **surroundings: Any) -> Answer:
        """Run a bundle's container in the foreground, to its end."""
        return self("run", "--bundle", str(bundle.write()), *options, self.claim(), **surroundings)

    def create(self, bundle: Bundle, *options: str, **surroundings: Any) -> str:
        """Create a container; returns its id."""
        container = self.claim()
        self.ok("create", "--bundle", str(bundle.write()), *options, container, **surroundings)
        return container

    def start(self, bundle: Bundle, *options: str, **surroundings: Any) -> str:
        """Create and start a container; returns its id."""
        container = self.create(bundle, *options, **surroundings)
        self.ok("start", container)
        return container

    def ok(self, *words: str, **surroundings: Any) -> str:
        """Run a command that must succeed; returns its output."""
        answer = self(*words, **surroundings)
        assert answer.code == 0, f"{self.name} {' '.join(words)}: {answer.err}"
        return answer.out

    def state(self, container: str) -> dict[str, Any]:
        """Return a container's state."""
        found: dict[str, Any] = json.loads(self.ok("state", container))
        return found

    def ended(self, container: str, timeout: float = TIMEOUT) -> None:
        """Wait until a container has stopped."""
        until(lambda: self.state(container)["status"] == "stopped", timeout)

    def claim(self) -> str:
        """Return an id that will be deleted after the test."""
        self.running.append(f"ktest-{secrets.token_hex(4)}")
        return self.running[-1]

    def clean(self) -> None:
        """Delete every container that was made."""
        for container in self.running:
            self("delete", "--force", container)
        self.running.clear()


def _unified() -> int:
    """Return a mount namespace whose /sys/fs/cgroup is cgroup2 alone: some runtimes refuse a mixture of versions."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return -1
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(abi.CLONE_NEWNS)
            syscalls.mount(None, "/", None, abi.MS_REC | abi.MS_PRIVATE)
            syscalls.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0)
            os.write(writer, b"+")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        if os.read(reader, 1) != b"+":
            raise FailedPrecondition("cgroup2 cannot be mounted here", hint="the runtime wants cgroup version 2")
        return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Return the first true value of a condition on the world outside."""
    due = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < due, f"did not come true within {timeout:g} s"
        time.sleep(0.02)
    return value
