"""The other builders, building the same input in the same run: buildah, and BuildKit where a `buildkitd` is found.

Both get Kestrel's stand-in for the base images, under the names that the Dockerfiles use. What they make is read as an
OCI layout, like ours.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder_judges.kestrel_builds import Order, unpack

TIMEOUT = 120


@dataclass(frozen=True)
class Made:
    """What a builder made of an order: an OCI layout, or why there is none."""

    layout: Path | None
    said: str = ""


class Buildah:
    """`buildah bud` with a storage of its own."""

    name = "buildah"

    def __init__(self, root: Path, base: Path, names: tuple[str, ...]) -> None:
        self._temporary = str(root / "tmp")  # where buildah keeps caches of RUN --mount for good, too
        os.makedirs(self._temporary)
        self._command = [
            "buildah",
            "--root",
            str(root / "s"),
            "--runroot",
            str(root / "r"),
            "--storage-driver",
            "overlay",
        ]
        image = self._run("pull", "-q", f"docker-archive:{base}:{names[0]}").stdout.split()[-1]
        self._run("tag", image, *names)

    def _run(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self._command, *words],
            check=check,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self._temporary},
        )

    def build(self, order: Order, scratch: Path) -> Made:
        """Build an order; what it leaves in the storage goes at once."""
        words = ["bud", "-q", "--no-cache", "--layers", "--pull-never", "--isolation", "chroot", "--network", "host"]
        words += ["--format", "docker", *(word for value in order.args for word in ("--build-arg", value))]
        words += ["-f", order.dockerfile or f"{order.context}/Dockerfile", order.context]
        done = self._run(*words, check=False)
        if done.returncode:
            return Made(None, done.stderr.strip())
        image = done.stdout.split()[-1]
        plain = scratch / "buildah.d"
        self._run("push", "-q", "--format", "v2s2", "--disable-compression", image, f"dir:{plain}")
        self._run("rmi", "-f", image, check=False)
        return Made(_as_layout(plain, scratch / "buildah"))


def _as_layout(plain: Path, layout: Path) -> Path:
    """Turn a directory of blobs into an OCI layout: docker's configuration has fields that an OCI one would lose."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for file in plain.iterdir():
        name = hashlib.sha256(file.read_bytes()).hexdigest() if file.name == "manifest.json" else file.name
        file.rename(blobs / name)
        if file.name == "manifest.json":
            index = {"manifests": [{"digest": f"sha256:{name}"}]}
            (layout / "index.json").write_text(json.dumps(index))
    return layout


class BuildKit:
    """A `buildkitd` of the judges' own, asked with `buildctl`."""

    name = "BuildKit"

    def __init__(self, root: Path, base: Path, names: tuple[str, ...]) -> None:
        self._address = f"unix://{root}/socket"
        self._base = root / "base"
        self._builds = 0
        unpack(base, self._base)
        digest = json.loads((self._base / "index.json").read_bytes())["manifests"][0]["digest"]
        written = {*names, *(name.removesuffix(":latest") for name in names)}
        self._images = [
            word for name in sorted(written) for word in ("--opt", f"context:{name}=oci-layout://base@{digest}")
        ]

    @classmethod
    @contextmanager
    def running(cls, root: Path, base: Path, names: tuple[str, ...]) -> Iterator["BuildKit"]:
        """Start the daemon and end it afterwards."""
        root.mkdir(parents=True, exist_ok=True)
        made = cls(root, base, names)
        words = ["buildkitd", "--root", str(root / "root"), "--addr", made._address, "--oci-worker-net", "host"]
        words += ["--containerd-worker=false", "--oci-worker-binary", "runc"]
        with open(root / "log", "wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as daemon:
            try:
                while not os.path.exists(root / "socket"):
                    if daemon.poll() is not None:
                        raise SystemExit(f"buildkitd ended: {(root / 'log').read_text()[-500:]}")
                    time.sleep(0.05)
                yield made
            finally:
                daemon.terminate()

    def build(self, order: Order, scratch: Path) -> Made:
        """Build an order."""
        dockerfile = _without_syntax(Path(order.dockerfile or f"{order.context}/Dockerfile"), scratch)
        archive = scratch / "buildkit.tar"
        words = ["buildctl", "--addr", self._address, "build", "--progress=plain", "--frontend", "dockerfile.v0"]
        self._builds += 1
        _touch(Path(order.context), self._builds)
        words += ["--local", f"context={order.context}", "--local", f"dockerfile={dockerfile.parent}"]
        words += ["--opt", f"filename={dockerfile.name}", "--no-cache", "--oci-layout", f"base={self._base}"]
        words += [*self._images, *(word for value in order.args for word in ("--opt", f"build-arg:{value}"))]
        words += ["--output", f"type=oci,dest={archive},compression=uncompressed"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode:
            return Made(None, done.stderr.strip())
        unpack(archive, scratch / "buildkit")
        return Made(scratch / "buildkit")


def _touch(context: Path, number: int) -> None:
    """Give every file a time of this build: the daemon takes one of the same size and time for the one it has."""
    for directory, names, files in os.walk(context):
        for name in (*names, *files):
            os.utime(f"{directory}/{name}", (number, number), follow_symlinks=False)


def _without_syntax(dockerfile: Path, scratch: Path) -> Path:
    """Leave out a line that asks for a frontend, which would have to be pulled: the daemon's own is newer."""
    directory = scratch / "dockerfile"
    directory.mkdir()
    lines = dockerfile.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not re.match(r"#\s*syntax\s*=", line)]
    (directory / dockerfile.name).write_text("".join(kept))
    ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    if ignored.exists():
        shutil.copy(ignored, directory)
    return directory / dockerfile.name


@contextmanager
def peers(base: Path, names: tuple[str, ...]) -> "Iterator[list[Buildah | BuildKit]]":
    """Give the builders that are here. `names` are those of the stand-in."""
    root = Path(tempfile.mkdtemp(prefix="ktest-", dir="/var/tmp"))
    try:
        found: list[Buildah | BuildKit] = []
        if shutil.which("buildah"):
            found.append(Buildah(root, base, names))
        if shutil.which("buildkitd") and shutil.which("buildctl"):
            with BuildKit.running(root / "buildkit", base, names) as buildkit:
                yield [*found, buildkit]
            return
        yield found
    finally:
        _unmount(root)
        shutil.rmtree(root, ignore_errors=True)


def _unmount(root: Path) -> None:
    """Take away what buildah leaves mounted of builds that failed (`man 5 proc`, mountinfo: the fifth word)."""
    with open("/proc/self/mountinfo") as file:
        places = [line.split(" ")[4] for line in file]
    for place in reversed(places):
        if place.startswith(f"{root}/"):
            subprocess.run(["umount", "-l", place], check=False)
