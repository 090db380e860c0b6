"""Writes the files of a projected volume so that readers see all of the old files or all of the new ones.

The layout is that of Kubernetes: files lie in a directory with a time in its name, `..data` is a symbolic link to it,
and each visible name is a link through `..data`. An update writes a new directory and renames one link over `..data`,
which is atomic; a container that watches `..data` sees one change (kubernetes.io "ConfigMaps", mounted ConfigMaps are
updated automatically).
"""

import os
import shutil
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from kestrel.kube.kubelet.projection import File

DATA = "..data"


def write(root: Path, files: Mapping[str, File], *, now: datetime, group: int | None = None) -> bool:
    """Make `root` hold exactly these files; returns whether anything changed. `group` owns them, if given."""
    root.mkdir(parents=True, exist_ok=True)
    link = root / DATA
    current = _current(root)
    if current is not None and _same(current, files):
        return False
    fresh = root / f"..{now.strftime('%Y_%m_%d_%H_%M_%S')}.{os.urandom(4).hex()}"
    fresh.mkdir(mode=0o755)
    os.chmod(fresh, 0o755)
    for path, file in files.items():
        _write_file(fresh, path, file, group)
    temporary = root / f"{DATA}_tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(fresh.name)
    temporary.rename(link)
    _links(root, files)
    for old in root.iterdir():
        if old.name.startswith("..") and old.name not in (DATA, fresh.name):
            shutil.rmtree(old, ignore_errors=True)
    return True


def _write_file(directory: Path, path: str, file: File, group: int | None) -> None:
    target = directory / path
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = file.mode if group is None else file.mode | (file.mode & 0o400) >> 3
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(file.data)
        if group is not None:
            os.fchown(opened.fileno(), -1, group)
        os.fchmod(opened.fileno(), mode)


def _links(root: Path, files: Mapping[str, File]) -> None:
    wanted = {path.split("/", 1)[0] for path in files}
    for name in wanted:
        entry = root / name
        if not entry.is_symlink():
            entry.symlink_to(f"{DATA}/{name}")
    for entry in root.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted and entry.is_symlink():
            entry.unlink()


def _current(root: Path) -> Path | None:
    try:
        return root / os.readlink(root / DATA)
    except OSError:
        return None


def _same(directory: Path, files: Mapping[str, File]) -> bool:
    found = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    if found.keys() != files.keys():
        return False
    for path, file in files.items():
        info = found[path].stat()
        if info.st_size != len(file.data) or found[path].read_bytes() != file.data:
            return False
        if stat.S_IMODE(info.st_mode) & ~0o070 != file.mode & ~0o070:
            return False
    return True
