"""An image as values that can be compared: its configuration, and every file by name with all but its time.

Times are left out: ours are clamped (README, "Same input, same digest"), theirs are those of the context.
"""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder_judges.kestrel_builds import blob, manifest_of

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KINDS = {
    tarfile.SYMTYPE: "link",
    tarfile.DIRTYPE: "directory",
    tarfile.CHRTYPE: "c",
    tarfile.BLKTYPE: "b",
    tarfile.FIFOTYPE: "fifo",
}
_FIELDS = "Env Cmd Entrypoint ExposedPorts Labels User Volumes WorkingDir StopSignal Healthcheck Shell OnBuild".split()

File = tuple[Any, ...]


@dataclass(frozen=True)
class Picture:
    config: dict[str, Any]
    files: dict[str, File] = field(default_factory=dict)

    def difference(self, other: "Picture", left_out: "set[str] | None" = None) -> list[str]:
        """Say in what two pictures differ, a line each; `left_out` names files that are not looked at."""
        lines = [
            f"config.{name}: {self.config.get(name)!r} here, {other.config.get(name)!r} there"
            for name in _FIELDS
            if self.config.get(name) != other.config.get(name)
        ]
        return lines + [
            f"/{path}: {self.files.get(path)} here, {other.files.get(path)} there"
            for path in sorted({*self.files, *other.files} - (left_out or set()))
            if self.files.get(path) != other.files.get(path)
        ]


def picture(layout: Path) -> Picture:
    """Read the one image of an OCI layout."""
    _, manifest = manifest_of(layout)
    config = json.loads(blob(layout, manifest["config"]["digest"]))["config"]
    files: dict[str, File] = {}
    for layer in manifest["layers"]:
        data = blob(layout, layer["digest"])
        _apply(files, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return Picture(_plain(config), files)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: empty fields, and what docker since version 23 gives an image built on nothing."""
    kept = {name: value for name, value in config.items() if value}
    kept["Env"] = sorted(e for e in kept.get("Env", ()) if e != DEFAULT_PATH)
    kept["Labels"] = {n: v for n, v in kept.get("Labels", {}).items() if not n.startswith("io.buildah.")}
    if kept.get("WorkingDir") == "/":
        del kept["WorkingDir"]
    return {name: value for name, value in kept.items() if value}


def _apply(files: dict[str, File], tar: bytes) -> None:
    """Put a layer on what is there (image-spec layer.md, "Applying Changesets")."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        for info in archive:
            name = info.name.removeprefix("./").strip("/")
            place, _, last = name.rpartition("/")
            if last == ".wh..wh..opq":
                _forget(files, place, itself=False)
            elif last.startswith(".wh."):
                _forget(files, f"{place}/{last[4:]}".lstrip("/"), itself=True)
            elif name:
                seen = files[info.linkname.removeprefix("./").strip("/")] if info.islnk() else _file(archive, info)
                if seen[0] != "directory":
                    _forget(files, name, itself=True)
                files[name] = seen


def _file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> File:
    xattrs = {k: v for k, v in info.pax_headers.items() if k.startswith("SCHILY.xattr.")}
    kind = _KINDS.get(info.type, "file")
    content: Any = info.linkname
    if kind == "file":
        file = archive.extractfile(info)
        content = hashlib.sha256(file.read() if file else b"").hexdigest()[:12]
    elif kind in ("c", "b"):
        content = f"{info.devmajor}:{info.devminor}"
    mode = 0 if kind == "link" else info.mode & 0o7777
    return kind, oct(mode), info.uid, info.gid, content, tuple(sorted(xattrs.items()))


def _forget(files: dict[str, File], name: str, *, itself: bool) -> None:
    prefix = f"{name}/" if name else ""
    for path in [p for p in files if p.startswith(prefix) or (itself and p == name)]:
        del files[path]
