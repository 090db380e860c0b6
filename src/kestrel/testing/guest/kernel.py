"""Debian's kernel for virtual machines: a package of the configured apt sources, unpacked and never installed."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kestrel.base.errors import Unavailable

PACKAGE = "linux-image-cloud-amd64"
FETCH_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel: the image to boot, and the tree of its modules."""

    image: Path
    modules: Path

    def closure(self, names: list[str]) -> list[Path]:
        """Return the files of these modules and of all they depend on, in an order in which they can be loaded.

        A name that is not there is left out: it may be built in.
        """
        files = {_module_name(path): path for path in self.modules.rglob("*.ko")}
        ordered: dict[str, Path] = {}

        def take(name: str) -> None:
            if name in files and name not in ordered:
                for needed in _needs(files[name]):
                    take(needed)
                ordered[name] = files[name]

        for name in names:
            take(name.replace("-", "_"))
        return list(ordered.values())


def cache() -> Path:
    """Return the directory that keeps kernels between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "kestrel-guest")


def find() -> Kernel:
    """Return the kernel, fetching it when there is none yet. Raises Unavailable saying why it cannot be had."""
    if platform.machine() != "x86_64":
        raise Unavailable(f"the guest is an x86-64 machine, and its programs are this one's: {platform.machine()}")
    found = _unpacked()
    if found is None:
        _fetch()
        found = _unpacked()
    if found is None:
        raise Unavailable(f"{PACKAGE} holds no kernel image")
    return found


def _unpacked() -> Kernel | None:
    images = sorted(cache().glob("linux-image-*/boot/vmlinuz-*"))
    if not images:
        return None
    image = images[-1]
    return Kernel(image, image.parent.parent / "lib/modules" / image.name.removeprefix("vmlinuz-"))


def _fetch() -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Unavailable(f"the guest's kernel is a Debian package, and there is no {program}")
    top = cache()
    incoming = top / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    _call(["apt-get", "download", _concrete()], incoming)
    archive = next(incoming.glob("*.deb"))
    _call(["dpkg-deb", "-x", archive.name, "tree"], incoming)
    (incoming / "tree").rename(top / archive.name.removesuffix(".deb"))  # in one step: a torn one is never found
    shutil.rmtree(incoming)


def _concrete() -> str:
    """Return the package that the meta-package stands for, such as linux-image-6.1.0-56-cloud-amd64."""
    shown = _call(["apt-cache", "show", "--no-all-versions", PACKAGE], Path("/"))
    found = re.search(r"^Depends: (linux-image-\S+)", shown, re.MULTILINE)
    if found is None:
        raise Unavailable(f"apt knows no {PACKAGE}", hint="run apt-get update on a Debian machine")
    return found[1]


def _call(argv: list[str], directory: Path) -> str:
    try:
        return subprocess.run(
            argv, cwd=directory, capture_output=True, text=True, check=True, timeout=FETCH_TIMEOUT
        ).stdout
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout).strip().splitlines()[-1:]
        raise Unavailable(f"{' '.join(argv)} failed: {' '.join(last)}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{' '.join(argv)} took longer than {FETCH_TIMEOUT:.0f} s") from error


def _module_name(path: Path) -> str:
    return path.stem.replace("-", "_")


def _needs(path: Path) -> list[str]:
    """Read a module's `depends=` from its .modinfo section: NUL-terminated words (`man 8 modinfo`)."""
    found = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []
