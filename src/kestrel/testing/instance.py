"""A whole Kestrel of a test's own, driven as people drive it: through its command line, in processes of their own.

    with Instance.make() as kestrel:
        kestrel("up")
        assert kestrel("run", "--rm", image, "echo", "hello").out == "hello\\n"

Root and run directory, name and ports are its own, so any number run beside each other and beside the real one. What
it is told goes through the `kestrel` command only; what it leaves behind is looked up in the kernel itself.
"""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from kestrel.linux.nftables import Nftables

LAUNCHER = "import sys; sys.path += {path!r}; from kestrel.cli.main import main; main()"
TIMEOUT = 60.0  # seconds a command may take unless a test says otherwise


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said: its exit code, data and talk."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the data as JSON."""
        return msgspec.json.decode(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One Kestrel. `base` holds all its files; calling it runs a command and returns the `Answer`."""

    base: Path
    name: str
    kubernetes_port: int
    registry_port: int
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def make(cls, *, root: "Path | None" = None, **extra: str) -> Iterator[Self]:
        """Give an instance that does not run yet; whatever of it does at the end is killed. `extra` is environment."""
        base = Path(tempfile.mkdtemp(prefix="ktest-", dir="/var/tmp"))  # /tmp may be a tmpfs: no overlay upper there
        if root is not None:
            extra["KESTREL_ROOT"] = str(root)
        made = cls(
            base=base,
            name=f"ktest{secrets.token_hex(2)}",
            kubernetes_port=free_port(),
            registry_port=free_port(),
            extra=extra,
        )
        try:
            yield made
        finally:
            made.destroy()
            shutil.rmtree(base, ignore_errors=True)

    @property
    def root(self) -> Path:
        """Where data lasts."""
        return Path(self.environment["KESTREL_ROOT"])

    @property
    def run_directory(self) -> Path:
        """Where sockets and run-time state are."""
        return self.base / "run"

    @property
    def registry(self) -> str:
        """The host part of names in its own registry."""
        return f"localhost:{self.registry_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes a command talk to this one; the surrounding one's settings are left out."""
        ours = {
            "KESTREL_ROOT": str(self.base / "root"),
            "KESTREL_RUN": str(self.run_directory),
            "KESTREL_NAME": self.name,
            "KESTREL_KUBERNETES_PORT": str(self.kubernetes_port),
            "KESTREL_REGISTRY_PORT": str(self.registry_port),
            "KESTREL_KUBECONFIG": str(self.base / "kubeconfig"),
            "KUBECONFIG": str(self.base / "kubeconfig"),
            "HOME": str(self.base / "home"),
        }
        rest = {name: value for name, value in os.environ.items() if not name.startswith("KESTREL_")}
        return {**rest, **ours, **self.extra}

    # Commands

    def command(self, *arguments: str) -> list[str]:
        """Return the words that run a command of this instance."""
        path = [entry for entry in sys.path if entry]
        return [sys.executable, "-I", "-S", "-c", LAUNCHER.format(path=path), *arguments]

    def __call__(
        self,
        *arguments: str,
        code: "int | None" = 0,
        stdin: "bytes | str" = b"",
        timeout: float = TIMEOUT,
        cwd: "Path | None" = None,
        env: "Mapping[str, str] | None" = None,
    ) -> Answer:
        """Run a command to its end. Fails when the exit code is not `code` (None: any will do), or it hangs."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        with self.start(*arguments, cwd=cwd, env=env) as process:
            try:
                out, err = process.communicate(data, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()  # not terminate: the command hands SIGTERM on to its container
                out, err = process.communicate()
                raise AssertionError(f"kestrel {arguments} hangs; it said {out!r} and {err!r}") from None
            except BaseException:
                process.kill()  # or leaving the block would wait for it
                raise
        answer = Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        if code is not None and answer.code != code:
            raise AssertionError(
                f"kestrel {' '.join(arguments)} ended with {answer.code}, not {code}:\n{answer.out}{answer.err}"
            )
        return answer

    def start(
        self, *arguments: str, cwd: "Path | None" = None, env: "Mapping[str, str] | None" = None, **streams: Any
    ) -> "subprocess.Popen[bytes]":
        """Start a command and return its process, its three streams piped unless told otherwise."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*arguments),
            env={**self.environment, **(env or {})},
            cwd=cwd or self.base,
            **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **streams},
        )

    def inspect(self, name: str) -> Any:
        """Return what `kestrel inspect` says of one container or image."""
        return self("inspect", name).json()[0]

    def build(self, tag: str, dockerfile: str, files: "Mapping[str, bytes | str] | None" = None) -> str:
        """Build an image out of a Dockerfile and files given as text; returns its id."""
        context = Path(tempfile.mkdtemp(prefix="context-", dir=self.base))
        for name, content in {"Dockerfile": dockerfile, **(files or {})}.items():
            path = context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.chmod(0o755 if path.read_bytes()[:2] in (b"#!", b"\x7fE") else 0o644)
        return self("build", "-q", "-t", tag, str(context)).out.strip()

    # The daemon

    def daemon(self) -> int:
        """Return the process id of the daemon, which is started if none runs."""
        pid: int = self("up", "--json").json()["pid"]
        return pid

    def kill_daemon(self) -> None:
        """`kill -9` the daemon and wait until the kernel has let go of it."""
        kill(self.daemon())

    def zygote(self) -> int:
        """Return the process id of the zygote: the daemon's child."""
        daemon = self.daemon()
        return next(pid for pid in self.processes() if parent(pid) == daemon)

    def idle(self) -> set[int]:
        """Return the processes that are there for no container: the daemon, the zygote, and who waits with it."""
        return {self.daemon(), *zygotes(self.zygote())}

    def processes(self) -> list[int]:
        """Return the host's ids of all processes of this instance, told by environment, arguments or cgroup."""
        return [pid for pid in _all_processes() if pid != os.getpid() and self._owns(pid)]

    def _owns(self, pid: int) -> bool:
        run = str(self.run_directory).encode()
        return (
            b"KESTREL_RUN=" + run in read(f"/proc/{pid}/environ").split(b"\0")
            or run in read(f"/proc/{pid}/cmdline").split(b"\0")
            or f"/{self.name}/".encode() in read(f"/proc/{pid}/cgroup")
        )

    def shim(self, container: str) -> int:
        """Return the process id of the shim that a running container lives in: its first process's parent."""
        return parent(self.inspect(container)["pid"])

    def traces(self, *, files: bool = True) -> list[str]:
        """Say what the kernel (and, with `files`, the run directory) still has of this instance, one line each."""
        found = [f"process {pid}: {_words(pid)}" for pid in self.processes()]
        for pid in _all_processes():
            mounts = read(f"/proc/{pid}/mountinfo").decode(errors="replace").splitlines()
            found += [f"mount of process {pid}: {m}" for m in mounts if str(self.base) in m]
        found += [f"cgroup {path}" for path in self.cgroups()]
        found += [f"link {link}" for link in self.links()]
        with Nftables() as nft:
            found += [f"nft table {table}" for table in nft.tables() if self.name in table[1]]
        if files and self.run_directory.exists():
            kept = {"daemon.log", "daemon.lock", "start.lock"}  # of a daemon, not of what it ran
            found += [f"file {path}" for path in sorted(self.run_directory.iterdir()) if path.name not in kept]
        return found

    def cgroups(self) -> list[str]:
        """Return every cgroup of this instance, in every hierarchy."""
        tops = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
        ours = [top / self.name for top in tops if (top / self.name).is_dir()]
        return [directory for top in ours for directory, _, _ in os.walk(top)]

    def links(self) -> list[str]:
        """Return this host's network links whose names begin with ours."""
        return [name for _, name in socket.if_nameindex() if name.startswith(self.name)]

    def destroy(self) -> None:
        """Take down whatever is left of it, politely first, and without asking anyone after that."""
        try:
            self("down", "--all", code=None, timeout=30)
        except AssertionError:
            pass  # a broken instance is exactly what has to be cleaned up here
        for pid in self.processes():
            kill(pid)
        for path in reversed(self.cgroups()):
            wait_until(partial(_removed, path), timeout=5)
        for link in self.links():
            subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
        with Nftables() as nft:
            for family, table in nft.tables():
                if self.name in table:
                    nft.run(f"delete table {family} {table}")


_PORTS: Final = iter(random.sample(range(20_000, 30_000), 10_000))
"""Below those that the kernel gives to clients (`man 7 ip`, ip_local_port_range), and those of a node."""


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on; never the same again."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("every port was given to somebody")


def kill(pid: int) -> None:
    """`kill -9` one process and wait until it has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        wait_until(lambda: not alive(pid))
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody has waited for does not."""
    text = read(f"/proc/{pid}/stat")
    return bool(text) and text.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def zygotes(pid: int) -> set[int]:
    """Return a zygote and who waits with it: the next keeper, its shim, and what holds namespaces for that."""
    found, generation = {pid}, children(pid)[-1:]
    while generation:
        found |= set(generation)
        generation = [child for one in generation for child in children(one)]
    return found


def children(pid: int) -> list[int]:
    """Return the children of a process with one thread, the youngest last."""
    return [int(word) for word in read(f"/proc/{pid}/task/{pid}/children").split()]


def parent(pid: int) -> int:
    """Return the id of a process's parent, 0 when it has ended."""
    text = read(f"/proc/{pid}/stat")
    return int(text.rpartition(b")")[2].split()[1]) if text else 0


def wait_until(condition: Callable[[], Any], timeout: float = 20, every: float = 0.02) -> Any:
    """Return the first true value of a condition on the world outside of this process."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"did not come true within {timeout:g} s")
        time.sleep(every)
    return value


def _all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read(path: str) -> bytes:
    """Return a file of /proc, nothing when its process has gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _words(pid: int) -> Sequence[str]:
    return read(f"/proc/{pid}/cmdline").decode(errors="replace").split("\0")[:6]


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
