"""Small real images, made in memory: a static busybox, whatever files a test needs, a configuration and a manifest.

    image = tiny_image(store, files={"etc/motd": b"hello"}, cmd=["cat", "/etc/motd"])
    unpack(image, snapshots)
    plan = snapshots.prepare("a", image.diff_ids)

The same arguments give the same digests.
"""

import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from kestrel.archive.compression import LayerWriter
from kestrel.archive.entries import Entry, Kind
from kestrel.archive.writer import TarWriter
from kestrel.base.errors import FailedPrecondition
from kestrel.content import Store
from kestrel.oci import media_types
from kestrel.oci.config import ContainerDefaults, History, ImageConfig, RootFS
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index, Manifest
from kestrel.oci.platform import Platform
from kestrel.snapshots import Snapshotter

BUSYBOX = Path("/bin/busybox")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EPOCH = 1_700_000_000 * 1_000_000_000
"""When everything in these images was last changed, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link among the files of a layer."""

    target: str


Files = Mapping[str, "bytes | Symlink | Entry | None"]
"""Path to content: bytes are a file (executable when they look like a program), None a directory, an Entry anything."""


@dataclass(frozen=True, slots=True)
class TinyImage:
    """All parts of an image; `blobs` holds every one of them by digest, manifest and configuration included."""

    manifest: Descriptor
    config: ImageConfig
    diff_ids: tuple[Digest, ...]
    tars: tuple[bytes, ...]
    blobs: Mapping[Digest, bytes]

    @property
    def id(self) -> Digest:
        """What docker calls the image's id: the digest of the configuration."""
        return Manifest.decode(self.manifest_bytes).config.digest

    @property
    def manifest_bytes(self) -> bytes:
        """The manifest as it is stored."""
        return self.blobs[self.manifest.digest]

    @property
    def config_bytes(self) -> bytes:
        """The configuration as it is stored."""
        return self.blobs[self.id]


def tiny_image(
    store: "Store | None" = None,
    *,
    files: "Files | None" = None,
    layers: "Sequence[Files | bytes]" = (),
    busybox: bool = True,
    cmd: "Sequence[str] | None" = ("sh",),
    entrypoint: "Sequence[str] | None" = None,
    env: Sequence[str] = (PATH,),
    user: str = "",
    working_dir: str = "",
    labels: "Mapping[str, str] | None" = None,
    exposed_ports: Sequence[str] = (),
    volumes: Sequence[str] = (),
    stop_signal: str = "",
    compression: str = "gzip",
) -> TinyImage:
    """Make an image: busybox first (unless told not to), then a layer of `files`, then `layers` (files or tar bytes).

    With `store`, its blobs are put there; nothing names them yet, so hold a lease if a collection may run.
    """
    parts: list[Files | bytes] = ([busybox_layer()] if busybox else []) + ([files] if files else []) + list(layers)
    tars = tuple(part if isinstance(part, bytes) else layer(part) for part in parts)
    defaults = ContainerDefaults(
        env=tuple(env),
        cmd=None if cmd is None else tuple(cmd),
        entrypoint=None if entrypoint is None else tuple(entrypoint),
        user=user,
        working_dir=working_dir,
        labels=dict(labels or {}),
        exposed_ports={port: {} for port in exposed_ports},
        volumes={volume: {} for volume in volumes},
        stop_signal=stop_signal,
    )
    return assemble(tars, defaults, compression=compression, store=store)


def assemble(
    tars: Sequence[bytes], defaults: ContainerDefaults, *, compression: str = "gzip", store: "Store | None" = None
) -> TinyImage:
    """Make an image of plain tars and defaults."""
    blobs: dict[Digest, bytes] = {}
    descriptors = []
    for tar in tars:
        stored = compressed(tar, compression)
        descriptors.append(Descriptor.of(media_types.layer_type(compression), stored))
        blobs[descriptors[-1].digest] = stored
    diff_ids = tuple(Digest.of(tar) for tar in tars)
    host = Platform.host()
    config = ImageConfig(
        created="2023-11-14T22:13:20Z",
        architecture=host.architecture,
        variant=host.variant,
        os=host.os,
        config=defaults,
        rootfs=RootFS(diff_ids=diff_ids),
        history=tuple(History(created="2023-11-14T22:13:20Z", created_by=f"layer {n}") for n in range(len(tars))),
    )
    config_descriptor = Descriptor.of(media_types.OCI_CONFIG, config.encode())
    blobs[config_descriptor.digest] = config.encode()
    manifest = Manifest.of(config_descriptor, descriptors).encode()
    descriptor = Descriptor.of(media_types.OCI_MANIFEST, manifest)
    blobs[descriptor.digest] = manifest
    if store:
        for digest, data in blobs.items():
            store.put(data, digest)
    return TinyImage(descriptor, config, diff_ids, tuple(tars), blobs)


def oci_archive(image: TinyImage, name: str) -> bytes:
    """Return an image as a tar of an OCI layout, as `kestrel load`, podman and skopeo take it."""
    annotations = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    index = Index.of([msgspec.structs.replace(image.manifest, annotations=annotations)])
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index.encode()}
    return layer({**files, **{f"blobs/sha256/{digest.hex}": data for digest, data in image.blobs.items()}})


def unpack(image: TinyImage, snapshots: Snapshotter) -> tuple[Digest, ...]:
    """Make every layer of the image mountable; returns the diff_ids, the lowest first."""
    for diff_id, tar in zip(image.diff_ids, image.tars, strict=True):
        snapshots.add_layer(diff_id, io.BytesIO(tar))
    return image.diff_ids


def layer(files: Files) -> bytes:
    """Return the plain tar of a layer; missing parent directories are added. Whiteouts are just names."""
    entries: dict[str, tuple[Entry, bytes]] = {}
    for path, content in files.items():
        name = path.strip("/")
        for parent in _parents(name):
            entries.setdefault(parent, (_directory(parent), b""))
        entries[name] = _member(name, content)
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    for _, (entry, data) in sorted(entries.items()):
        tar.add(entry, data)
    tar.close()
    return buffer.getvalue()


def tar_of(*members: "Entry | tuple[Entry, bytes]") -> bytes:
    """Return a plain tar of exactly these members in this order, however odd; a file's size follows its bytes."""
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    for member in members:
        entry, data = member if isinstance(member, tuple) else (member, b"")
        tar.add(msgspec.structs.replace(entry, size=len(data)), data)
    tar.close()
    return buffer.getvalue()


@lru_cache(maxsize=1)
def busybox_layer() -> bytes:
    """Return a layer with a static busybox, a link for each of its applets, and the usual directories and files."""
    if not BUSYBOX.exists():
        raise FailedPrecondition("there is no /bin/busybox", hint="apt-get install busybox-static")
    listed = subprocess.run([BUSYBOX, "--list-full"], capture_output=True, check=True, text=True).stdout.split()
    files: dict[str, bytes | Symlink | Entry | None] = {
        "bin/busybox": BUSYBOX.read_bytes(),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
        "root": None,
        "home": None,
        "proc": None,
        "sys": None,
        "dev": None,
        "run": None,
        "var": None,
        "tmp": Entry(name="tmp", kind=Kind.DIRECTORY, mode=0o1777, mtime=EPOCH),
    }
    for applet in listed:
        if applet not in ("bin/busybox", "linuxrc"):
            files[applet] = Symlink("/bin/busybox")
    return layer(files)


def compressed(tar: bytes, compression: str) -> bytes:
    """Return a tar as it would be stored in a registry."""
    buffer = io.BytesIO()
    writer = LayerWriter(buffer, compression)
    writer.write(tar)
    writer.close()
    return buffer.getvalue()


def _member(name: str, content: "bytes | Symlink | Entry | None") -> tuple[Entry, bytes]:
    if isinstance(content, Entry):
        return content, b""
    if content is None:
        return _directory(name), b""
    if isinstance(content, Symlink):
        return Entry(name=name, kind=Kind.SYMLINK, mode=0o777, link=content.target, mtime=EPOCH), b""
    program = content.startswith((b"#!", b"\x7fELF"))
    return Entry(name=name, mode=0o755 if program else 0o644, size=len(content), mtime=EPOCH), content


def _directory(name: str) -> Entry:
    return Entry(name=name, kind=Kind.DIRECTORY, mode=0o755, mtime=EPOCH)


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return [os.path.join(*parts[: count + 1]) for count in range(len(parts))]
