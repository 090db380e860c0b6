"""The guest's root filesystem: what this machine runs Python with, at the same paths, and the checkout to test.

Copied are the interpreter with its standard library, the packages that Kestrel and its tests need, a few programs and
libraries with the libraries they are linked to, and the kernel's modules. busybox is the rest of the system.
`mke2fs -d` makes the image without root's rights; the files in it are root's.
"""

import io
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from kestrel.base.errors import Unavailable
from kestrel.testing.guest.kernel import Kernel

BUSYBOX = "/bin/busybox"
PACKAGES = ("kestrel", "pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
PROGRAMS = ("sh", "ip", "nft", "mke2fs")
LIBRARIES = ("libnftables.so.1", "libseccomp.so.2")
CHECKOUT = ("src", "tests", "pyproject.toml", "examples")
SIZE = "1536M"  # sparse; of the image's filesystem, most of it for what tests write

DISK_MODULES = ["virtio_pci", "virtio_blk"]
"""What the first stage needs to mount the root."""

MODULES = [
    "virtio_rng", "overlay", "erofs", "loop", "lzo-rle", "zram", "fuse", "tun", "dummy", "veth", "bridge",
    "br_netfilter", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_redir", "nft_ct", "nft_reject",
    "nft_reject_inet", "nft_fib", "nft_fib_inet", "nft_limit", "nft_log", "nft_objref", "nft_numgen",
    "nf_conntrack_netlink", "bfq",
]  # fmt: skip
"""What Debian would load by itself when it is first asked for; a guest without udev and kmod loads it at once."""

FIRST = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read module; do /bin/busybox insmod /modules/$module; done </modules/order
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
"""

INIT = """\
#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LANG=C.UTF-8 TZ=UTC
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
mount --make-rshared /
while read module; do insmod /lib/modules/$module; done </lib/modules/order
ip link set lo up
hostname guest
ulimit -n 65536
[ ! -e /sys/block/zram0 ] || { echo 256M >/sys/block/zram0/disksize; mkswap /dev/zram0; swapon /dev/zram0; } >/dev/null
stty -F /dev/ttyS1 raw -echo
export KESTREL_GUEST_REPORT=/dev/ttyS1
cd @CHECKOUT@
@COMMAND@
poweroff -f
"""


def build(directory: Path, kernel: Kernel, checkout: Path, command: str) -> tuple[Path, Path]:
    """Make the root image and the initial ramdisk in `directory`; return their paths."""
    if not os.path.exists(BUSYBOX) or _dynamic(BUSYBOX):
        raise Unavailable(f"the guest needs a static {BUSYBOX}", hint="install busybox-static")
    mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
    if mke2fs is None:
        raise Unavailable("there is no mke2fs to make the guest's disk with", hint="install e2fsprogs")
    tree = directory / "tree"
    _skeleton(tree)
    copied = [*_python(tree), *_programs(tree)]
    _libraries(tree, copied)
    _checkout(tree, checkout)
    disk = kernel.closure(DISK_MODULES)
    _modules(tree / "usr/lib/modules", [path for path in kernel.closure(MODULES) if path not in disk])
    _executable(tree / "usr/sbin/init", INIT.replace("@CHECKOUT@", str(checkout)).replace("@COMMAND@", command))
    image = directory / "root.ext4"
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0,lazy_itable_init=1", "-m", "0"]
    subprocess.run([mke2fs, *options, "-d", str(tree), str(image), SIZE], check=True, capture_output=True)
    shutil.rmtree(tree)
    ramdisk = directory / "initrd"
    ramdisk.write_bytes(_ramdisk(disk))
    return image, ramdisk


def _skeleton(tree: Path) -> None:
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin", "etc", "proc", "sys", "dev", "run"):
        (tree / name).mkdir(parents=True)
    for name in ("root", "home", "var/lib", "var/tmp", "tmp", "mnt", "srv"):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "var/run").symlink_to("/run")
    for name in ("tmp", "var/tmp"):
        (tree / name).chmod(0o1777)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (tree / "etc/group").write_text("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost guest\n::1 localhost\n")
    (tree / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    (tree / "etc/mtab").symlink_to("/proc/self/mounts")


def _place(tree: Path, path: str | Path) -> Path:
    """Return where the host's `path` goes; in the guest /bin and its like are names of /usr's."""
    relative = str(path).lstrip("/")
    if re.match(r"(bin|sbin|lib|lib64)/", relative):
        relative = f"usr/{relative}"
    return tree / relative


def _copy(tree: Path, path: str | Path) -> Path:
    """Copy one file to the same path, following a symbolic link; return the original."""
    target = _place(tree, path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return Path(path)


def _python(tree: Path) -> list[Path]:
    """Copy interpreter, standard library, this environment and the packages; return the binaries among them."""
    library = sysconfig.get_path("stdlib")
    skipped = shutil.ignore_patterns("test", "idlelib", "tkinter", "ensurepip", "site-packages", "dist-packages")
    shutil.copytree(library, _place(tree, library), ignore=skipped, symlinks=False, ignore_dangling_symlinks=True)
    binary = os.path.realpath(sys.executable)
    _copy(tree, binary)
    if sys.prefix != sys.base_prefix:
        _copy(tree, f"{sys.prefix}/pyvenv.cfg")
        _link(tree, f"{sys.prefix}/bin/python", binary)
    home = Path(sys.base_prefix, "bin")
    for name in ("python3", f"python{sys.version_info.major}.{sys.version_info.minor}"):
        _link(tree, home / name, binary)
    _packages(tree)
    return [Path(binary), *_shared(_place(tree, library)), *_shared(_place(tree, sysconfig.get_path("purelib")))]


def _link(tree: Path, path: str | Path, target: str) -> None:
    place = _place(tree, path)
    if not place.exists() and not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)


def _packages(tree: Path) -> None:
    """Copy PACKAGES and what they require, with their compiled files."""
    waiting, seen = list(PACKAGES), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # an optional one of another platform or version
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and path.is_file():
                _copy(tree, path)
                for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                    _copy(tree, compiled)


def _shared(top: Path) -> list[Path]:
    return list(top.rglob("*.so*"))


def _programs(tree: Path) -> list[Path]:
    _copy(tree, BUSYBOX)
    for name in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (tree / "usr/bin" / name).symlink_to("busybox")
    found = []
    for name in PROGRAMS:
        path = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
        if path is not None:
            _place(tree, f"/usr/bin/{name}").unlink(missing_ok=True)
            found.append(_copy(tree, path))
    return found


def _libraries(tree: Path, binaries: Iterable[Path]) -> None:
    """Copy what the binaries are linked to, and libraries that are loaded by name (`man 1 ldd`, `man 8 ldconfig`)."""
    ldconfig = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    named = [path for path in re.findall(r"=> (/\S+)", ldconfig) if os.path.basename(path) in LIBRARIES]
    for path in named:
        _copy(tree, path)
    listed = subprocess.run(["ldd", *binaries, *named], capture_output=True, text=True, check=False).stdout
    for path in sorted(set(re.findall(r"(?:=>)?\s(/\S+) \(0x", listed))):
        if not path.startswith(str(tree)):
            _copy(tree, path)


def _checkout(tree: Path, checkout: Path) -> None:
    for name in CHECKOUT:
        source = checkout / name
        target = _place(tree, source)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.exists():
            _copy(tree, source)
    # What is not compiled yet would be at every start of an interpreter in there, at emulation's pace.
    places = [str(_place(tree, checkout / name)) for name in CHECKOUT]
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-s", str(tree), *places], check=False)


def _modules(directory: Path, files: list[Path]) -> None:
    directory.mkdir(parents=True)
    for path in files:
        shutil.copy(path, directory)
    (directory / "order").write_text("".join(f"{path.name}\n" for path in files))


def _executable(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _dynamic(path: str) -> bool:
    return "not a dynamic" not in subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stderr


def _ramdisk(modules: list[Path]) -> bytes:
    """Return a cpio archive: busybox, the disk's modules and the first stage."""
    archive = _Cpio()
    for name in ("bin", "dev", "modules", "root"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, Path(BUSYBOX).read_bytes())
    for path in modules:
        archive.add(f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes())
    archive.add("modules/order", stat.S_IFREG | 0o644, "".join(f"{path.name}\n" for path in modules).encode())
    archive.add("init", stat.S_IFREG | 0o755, FIRST.encode())
    return archive.finish()


class _Cpio:
    """The "newc" format (Documentation/driver-api/early-userspace/buffer-format)."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._inode = 0

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        self._out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + path)
        self._pad()
        self._out.write(data)
        self._pad()

    def _pad(self) -> None:
        self._out.write(bytes(-self._out.tell() % 4))

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return self._out.getvalue()
