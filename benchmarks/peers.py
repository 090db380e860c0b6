"""docker and podman, started by hand inside namespaces of their own, so that the host's network stays as it is.

Both get a private network and mount namespace, data below a temporary directory, and one image: a few binaries over
busybox, made on the spot. Nothing of them is left afterwards.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

IMAGE = "localhost/bench:1"


class Peer:
    """How to call one program."""

    def __init__(self, prefix: list[str]) -> None:
        self.prefix = prefix

    def __call__(self, *arguments: str) -> list[str]:
        return [*self.prefix, *arguments]


def root_tar(directory: Path) -> Path:
    """Make the tar of a root filesystem with busybox and its usual names."""
    root = directory / "root"
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in ("sh", "true", "sleep", "echo", "cat", "ls"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    path = directory / "root.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(root, arcname=".")
    return path


@contextlib.contextmanager
def namespace(directory: Path) -> Iterator[list[str]]:
    """Hold a network and a mount namespace; yields the command prefix that enters them."""
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "ip link set lo up; exec sleep 86400"]
    )
    time.sleep(0.3)
    try:
        yield ["nsenter", f"--target={holder.pid}", "--net", "--mount"]
    finally:
        holder.kill()
        holder.wait()
    shutil.rmtree(directory / "unused", ignore_errors=True)


@contextlib.contextmanager
def docker(directory: Path, enter: list[str]) -> Iterator[Peer]:
    """Start dockerd with everything of its own."""
    home = directory / "docker"
    home.mkdir()
    socket = home / "docker.sock"
    log = open(home / "log", "wb")  # noqa: SIM115 - handed to the child
    daemon = subprocess.Popen(
        [*enter, "dockerd", f"--host=unix://{socket}", f"--data-root={home}/data", f"--exec-root={home}/exec",
         f"--pidfile={home}/pid", "--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent=kestrel-bench"],
        stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    peer = Peer(["docker", f"--host=unix://{socket}"])
    try:
        for _ in range(200):
            if subprocess.run(peer("version"), capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"dockerd did not start: {(home / 'log').read_text()[-2000:]}")
        yield peer
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        log.close()


def podman(directory: Path, enter: list[str]) -> Peer:
    """Return podman with storage of its own."""
    home = directory / "podman"
    home.mkdir()
    return Peer(
        [*enter, "podman", f"--root={home}/root", f"--runroot={home}/run", f"--tmpdir={home}/tmp",
         "--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc"]
    )  # fmt: skip


def bundle(directory: Path, tar: Path) -> Path:
    """Make an OCI bundle that runs `true`, from `runc spec`."""
    home = directory / "bundle"
    (home / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-xf", tar, "-C", home / "rootfs"], check=True)
    subprocess.run(["runc", "spec", "--bundle", home], check=True)
    spec = json.loads((home / "config.json").read_text())
    spec["process"]["args"] = ["/bin/true"]
    spec["process"]["terminal"] = False
    spec["linux"]["cgroupsPath"] = "/kestrel-bench/bundle"
    (home / "config.json").write_text(json.dumps(spec))
    return home


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary directory on the disk, not in memory."""
    path = Path(tempfile.mkdtemp(prefix="kestrel-bench-", dir="/var/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
