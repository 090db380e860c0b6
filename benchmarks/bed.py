"""What the rows share: a scratch directory, one Kestrel, one dockerd, one podman, one docker-registry, one image.

Each is started when the first row asks for it and ended with the bed. Everything runs in namespaces that
`benchmarks.__main__` made (network, mounts, processes), so that whatever is forgotten here ends with them, and each
finds the others at 127.0.0.1.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from benchmarks import image
from benchmarks.measure import command

REGISTRY_PORT, KUBERNETES_PORT, PEER_REGISTRY_PORT, ZOT_PORT = 25100, 26543, 25200, 25300
PATIENCE = 30.0  # seconds a peer may take to start


class Names:
    """Control groups of one run, so that several runs at a time do not end each other's containers.

    Those of Kestrels are also the prefix of their other kernel objects, and short for that reason.
    """

    def __init__(self, token: str) -> None:
        self.docker = f"kestrel-bench-{token}"
        self.podman = f"kestrel-bench-{token}-podman"
        self.build = f"kestrel-bench-{token}-build"
        self.runtime = f"kestrel-bench-{token}-runtime"
        self.kestrel = f"kb{token}"
        self.fresh = f"kf{token}"

    def all(self) -> list[str]:
        return list(vars(self).values())


class Bed:
    """Everything that is alive while rows are measured."""

    def __init__(self, directory: Path, names: "Names", *, quick: bool = False) -> None:
        self.directory = directory
        self.names = names
        self.quick = quick
        self._stack = contextlib.ExitStack()
        self._made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count(self, full: int) -> int:
        """How many rounds: as many as said, or a fifth of them in a hurry."""
        return max(2, full // 5) if self.quick else full

    def place(self, name: str) -> Path:
        """Make a new directory."""
        self._made += 1
        path = self.directory / f"{name}{self._made}"
        path.mkdir()
        return path

    @cached_property
    def kestrel(self) -> Path:
        """The command of a Kestrel that is up; what it needs to know is in the environment."""
        command([str(launcher()), "up"])
        self._stack.callback(lambda: subprocess.run([launcher(), "down", "--all"], capture_output=True))
        return launcher()

    @cached_property
    def docker(self) -> "list[str]":
        """The docker command, with a dockerd of our own behind it. Debian's client is of the same age as the daemon."""
        home = self.place("docker")
        client = ["/usr/bin/docker", f"--host=unix://{home}/docker.sock"]
        daemon = [
            "dockerd", f"--host=unix://{home}/docker.sock", f"--data-root={home}/data", f"--exec-root={home}/exec",
            f"--pidfile={home}/pid", "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent={self.names.docker}",
        ]  # fmt: skip
        self._daemon(
            daemon,
            home / "log",
            lambda: subprocess.run([*client, "version"], capture_output=True).returncode == 0,
        )
        command([*client, "pull", "--quiet", self.image])
        return client

    @cached_property
    def buildkit(self) -> "list[str]":
        """The buildctl command with a buildkitd of our own behind it; empty where there is none on the PATH."""
        if not (shutil.which("buildkitd") and shutil.which("buildctl")):
            return []
        home = self.place("buildkit")
        client = ["buildctl", f"--addr=unix://{home}/buildkitd.sock"]
        (home / "buildkitd.toml").write_text(f'[registry."{self.registry}"]\nhttp = true\n')
        daemon = [
            "buildkitd", f"--addr=unix://{home}/buildkitd.sock", f"--root={home}/root",
            f"--config={home}/buildkitd.toml",
            "--oci-worker=true", "--containerd-worker=false", "--oci-worker-net=host",
        ]  # fmt: skip
        self._daemon(
            daemon,
            home / "log",
            lambda: subprocess.run([*client, "debug", "workers"], capture_output=True).returncode == 0,
        )
        return client

    @cached_property
    def podman(self) -> "list[str]":
        """The podman command with storage of its own and runc below it, as Debian's dockerd has."""
        home = self.place("podman")
        client = [
            "podman", f"--root={home}/root", f"--runroot={home}/run", f"--tmpdir={home}/tmp",
            "--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc",
        ]  # fmt: skip
        command([*client, "pull", "--quiet", "--tls-verify=false", self.image])
        return client

    def podman_run(self, *words: str) -> "list[str]":
        """A `podman run` whose control groups are below ours."""
        return [*self.podman, "run", f"--cgroup-parent=/{self.names.podman}", *words]

    @cached_property
    def registry(self) -> str:
        """Address of a docker-registry with an empty store."""
        home = self.place("registry")
        address = f"127.0.0.1:{PEER_REGISTRY_PORT}"
        (home / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {home}/data}}, cache: {{blobdescriptor: inmemory}}}}\n"
            f"http: {{addr: '{address}'}}\n"
        )
        self.registry_process = self._daemon(
            ["docker-registry", "serve", str(home / "config.yml")], home / "log", lambda: answers(PEER_REGISTRY_PORT)
        )
        return address

    @cached_property
    def zot(self) -> str:
        """Address of a zot with an empty store; empty when its program is neither on the PATH nor $KESTREL_ZOT."""
        program = shutil.which(os.environ.get("KESTREL_ZOT", "zot"))
        if program is None:
            return ""
        home = self.place("zot")
        document = {
            "storage": {"rootDirectory": f"{home}/data", "commit": True},  # synced before it is acknowledged, as ours
            "http": {"address": "127.0.0.1", "port": str(ZOT_PORT)},
            "log": {"level": "error"},
        }
        (home / "config.json").write_text(json.dumps(document))
        argv = [program, "serve", str(home / "config.json")]
        self.zot_process = self._daemon(argv, home / "log", lambda: answers(ZOT_PORT))
        return f"127.0.0.1:{ZOT_PORT}"

    @cached_property
    def image(self) -> str:
        """Name of a small image (busybox) in the registry."""
        layout = self.place("layout")
        image.write(layout, [image.busybox_layer()])
        return push(layout, f"{self.registry}/bench:1")

    def own_image(self) -> str:
        """The small image, and Kestrel has it."""
        command([str(self.kestrel), "pull", "--quiet", self.image])
        return self.image

    def _daemon(self, argv: Sequence[str], log: Path, ready: Callable[[], bool]) -> "subprocess.Popen[bytes]":
        with open(log, "wb") as file:
            process = subprocess.Popen(argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)
        self._stack.callback(end, process)
        wait_for(ready, f"{argv[0]} to start", process=process, log=log)
        return process


def launcher() -> Path:
    """The `kestrel` command of the environment that runs the benchmark."""
    return Path(sys.prefix) / "bin" / "kestrel"


def settings(directory: Path, name: str) -> dict[str, str]:
    """Environment of a Kestrel of our own below `directory`."""
    return {
        "KESTREL_ROOT": f"{directory}/kestrel",
        "KESTREL_RUN": "/run/kestrel",
        "KESTREL_NAME": name,
        "KESTREL_KUBERNETES_PORT": str(KUBERNETES_PORT),
        "KESTREL_REGISTRY_PORT": str(REGISTRY_PORT),
        "KESTREL_KUBECONFIG": f"{directory}/kubeconfig",
    }


def daemon_pid() -> int:
    """Process id of the Kestrel daemon that is up."""
    answer = subprocess.run([launcher(), "status", "--json"], capture_output=True, check=True)
    return int(json.loads(answer.stdout)["pid"])


def push(layout: Path, name: str) -> str:
    """Copy an OCI layout to a registry and return the name."""
    command(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{name}"])
    return name


def answers(port: int) -> bool:
    """Whether something listens at a port of 127.0.0.1."""
    import socket

    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(
    ready: Callable[[], bool], what: str, *, process: "subprocess.Popen[bytes] | None" = None, log: "Path | None" = None
) -> None:
    """Poll until `ready`; raises when it takes too long or the process has ended."""
    due = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > due or (process is not None and process.poll() is not None):
            said = log.read_text()[-1500:] if log is not None else ""
            raise RuntimeError(f"waited in vain for {what}: {said}")
        time.sleep(0.02)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, then make it."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def remove(path: Path) -> None:
    """Remove a tree that may still be in use for a moment."""
    for _ in range(5):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.exists(path):
            return
        time.sleep(0.2)
