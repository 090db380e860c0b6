"""Images made on the spot, the same bytes each time: a busybox, and one of 198 MB in 10,200 files."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

APPLETS = ("sh", "true", "sleep", "echo", "cat", "ls", "mkdir", "cp")
FILES, SIZE = 10_200, 198_000_000
SHARES = (0.38, 0.06, 0.44, 0.0005, 0.1195)
"""How the large image is spread over layers: a distribution, its updates, an interpreter, its links, a program."""
_WORDS = b"import return self value config error handler request None True for while lambda yield async with".split()


def busybox_layer() -> bytes:
    """Return a tar with busybox and its usual names."""
    with open("/bin/busybox", "rb") as file:
        data = file.read()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            tar.addfile(_entry(name, kind=tarfile.DIRTYPE, mode=0o755))
        _file(tar, "bin/busybox", data, 0o755)
        for applet in APPLETS:
            link = _entry(f"bin/{applet}", kind=tarfile.SYMTYPE)
            link.linkname = "busybox"
            tar.addfile(link)
        _file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    return out.getvalue()


def large_layers() -> Iterator[bytes]:
    """Yield the tars of the large image, the lowest first; the first one can run `true`."""
    yield busybox_layer()
    source = random.Random(20260101)
    number = 0
    for share in SHARES:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            count = max(1, round(FILES * share))
            sizes = _sizes(source, count, round(SIZE * share))
            for index, size in enumerate(sizes):
                if index % 40 == 0:
                    directory = f"usr/lib/part{number}"
                    number += 1
                    tar.addfile(_entry(directory, kind=tarfile.DIRTYPE, mode=0o755))
                _file(tar, f"{directory}/file{index}.py", _content(source, size))
        yield out.getvalue()


def _sizes(source: random.Random, count: int, total: int) -> list[int]:
    """Sizes as real trees have them: many small files, few large ones."""
    weights = [source.lognormvariate(0, 1.6) for _ in range(count)]
    whole = sum(weights)
    return [int(total * weight / whole) for weight in weights]


def _content(source: random.Random, size: int) -> bytes:
    """About as compressible as programs are: a part is noise, the rest is words."""
    noise = source.randbytes(int(size * 0.325))
    text = b" ".join(source.choices(_WORDS, k=min(400, size // 4 + 1)))
    rest = size - len(noise)
    return (noise + text * (rest // len(text) + 1))[:size]


def write(layout: Path, tars: "Sequence[bytes] | Iterator[bytes]", command: Sequence[str] = ("/bin/sh",)) -> int:
    """Write an OCI layout (image-spec, image-layout.md) of gzipped layers; returns the compressed bytes of them."""
    (layout / "blobs/sha256").mkdir(parents=True)
    layers, diff_ids = [], []
    for tar in tars:
        diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        layers.append(_blob(layout, gzip.compress(tar, 6, mtime=0), "layer.v1.tar+gzip"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "benchmark"} for _ in diff_ids],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(layout, json.dumps(config).encode(), "config.v1+json"),
        "layers": layers,
    }
    entry = _blob(layout, json.dumps(manifest).encode(), "manifest.v1+json")
    index = {
        "schemaVersion": 2,
        "manifests": [{**entry, "annotations": {"org.opencontainers.image.ref.name": "latest"}}],
    }
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return sum(layer["size"] for layer in layers)


def _blob(layout: Path, data: bytes, kind: str) -> "dict[str, Any]":
    name = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / name).write_bytes(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{name}", "size": len(data)}


def _entry(name: str, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 1_700_000_000
    return entry


def _file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = _entry(name, mode=mode)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
