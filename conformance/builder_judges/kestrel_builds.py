"""Builds by a Kestrel of the judges' own: through its command line, as people do, in a root that goes afterwards."""

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kestrel.archive.entries import Entry, Kind
from kestrel.testing import images
from kestrel.testing.instance import Answer, Instance

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ADDUSER = b"""#!/bin/sh
# What the suites use of busybox's adduser, which Debian's build of it lacks: adduser [-D] [-H] [-u UID] NAME
uid=$(awk -F: '$3 >= 1000 && $3 < 65534 && $3 >= n {n = $3 + 1} END {print n ? n : 1000}' /etc/passwd)
while [ $# -gt 1 ]; do
    case $1 in -u) uid=$2; shift ;; -h | -s | -g | -G) shift ;; esac
    shift
done
echo "$1:x:$uid:$uid::/home/$1:/bin/sh" >>/etc/passwd
echo "$1:x:$uid:" >>/etc/group
mkdir -p "/home/$1" && chown "$uid:$uid" "/home/$1"
"""
PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
lp:x:7:7:lp:/var/spool/lpd:/bin/false
mail:x:8:8:mail:/var/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = b"""root:x:0:
daemon:x:1:
bin:x:2:
adm:x:4:
lp:x:7:
mail:x:8:
wheel:x:10:root
www-data:x:33:
users:x:100:
nobody:x:65534:
"""
FILES: "images.Files" = {
    "bin/adduser": ADDUSER,
    "bin/bash": b'#!/bin/sh\nexec /bin/sh "$@"\n',
    "usr/bin/script": b"#!/bin/sh\n",
    "etc/passwd": PASSWD,
    "etc/group": GROUP,
    "etc/shadow": b"root:*::0:::::\n",
    "etc/hostname": b"stand-in\n",
    "etc/alpine-release": b"0.0.0\n",
    "etc/os-release": b"ID=stand-in\n",
    "etc/nsswitch.conf": b"hosts: files dns\n",
    **dict.fromkeys("dev home proc root run sys usr/bin usr/sbin usr/local/bin var/www var/spool/mail".split()),
    "tmp": Entry(name="tmp", kind=Kind.DIRECTORY, mode=0o1777, mtime=images.EPOCH),
}
"""What busybox and alpine have besides the programs, as far as the suites look at it."""


def _files() -> "images.Files":
    """A static busybox with a link in /bin for each applet, where the real images have them too."""
    applets = subprocess.run([images.BUSYBOX, "--list"], capture_output=True, check=True, text=True).stdout.split()
    links = {f"bin/{name}": images.Symlink("/bin/busybox") for name in applets if name != "busybox"}
    return {**links, "bin/busybox": images.BUSYBOX.read_bytes(), **FILES}


@dataclass(frozen=True)
class Order:
    """What to build, in words that every builder has."""

    context: str
    dockerfile: str = ""
    args: tuple[str, ...] = ()
    target: str = ""
    no_cache: bool = False
    network: str = ""
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    extra: tuple[str, ...] = field(default=())


class Kestrel:
    """The instance, with stand-ins for the images that suites name and that cannot be pulled here."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    @classmethod
    @contextmanager
    def make(cls, names: tuple[str, ...]) -> Iterator["Kestrel"]:
        with Instance.make() as instance:
            instance("up")
            made = cls(instance)
            made.stand_in(names)
            yield made

    def stand_in(self, names: tuple[str, ...]) -> None:
        """Make one image of a static busybox, under all these names."""
        context = Path(tempfile.mkdtemp(prefix="base-", dir=self.instance.base))
        (context / "base.tar").write_bytes(images.layer(_files()))
        (context / "Dockerfile").write_text(f'FROM scratch\nADD base.tar /\nENV PATH={PATH}\nCMD ["sh"]\n')
        tags = [word for name in names for word in ("-t", name)]
        self.instance("build", "-q", *tags, "-o", f"type=docker,dest={self.base}", str(context))

    @property
    def base(self) -> Path:
        """The stand-in as an archive, for other builders."""
        return self.instance.base / "base-image.tar"

    def build(self, order: Order, *, timeout: float = 120) -> Answer:
        """Build; the answer's code says how it went."""
        words = ["build", "--json"]
        for flag, values in (
            ("--build-arg", order.args),
            ("--label", order.labels),
            ("--build-context", order.contexts),
            ("--secret", order.secrets),
            ("--ssh", order.ssh),
            ("--tag", order.names),
            ("--output", order.outputs),
        ):
            words += [word for value in values for word in (flag, value)]
        for flag, value in (("--file", order.dockerfile), ("--target", order.target), ("--network", order.network)):
            words += [flag, value] if value else []
        words += ["--no-cache"] if order.no_cache else []
        return self.instance(*words, *order.extra, order.context, code=None, timeout=timeout)

    def ask(self, what: str, order: Order) -> Answer:
        """Ask for the outline or the targets of a Dockerfile."""
        words = [word for value in order.args for word in ("--build-arg", value)]
        words += ["--target", order.target] if order.target else []
        words += ["--file", order.dockerfile] if order.dockerfile else []
        return self.instance("build", f"--{what}", "--json", *words, order.context, code=None)


def unpack(archive: Path, where: Path) -> None:
    """Open an OCI layout that was packed as a tar."""
    where.mkdir()
    with tarfile.open(archive) as packed:
        packed.extractall(where)


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def manifest_of(layout: Path) -> tuple[dict[str, object], dict[str, object]]:
    """Return descriptor and manifest of the one image of a layout."""
    descriptor = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    return descriptor, json.loads(blob(layout, descriptor["digest"]))
