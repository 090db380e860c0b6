"""What an image's layers hold: which instruction added how much, what of it is dead weight, and keys left behind.

Layers are read as tars from the store, the bottom first, a file at a time. A file that a later layer replaces or
removes still travels with the image: its bytes are counted as wasted by the layer that made them so, and a key in it
is still there for everybody to read.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from kestrel.archive.apply import OPAQUE, WHITEOUT
from kestrel.archive.compression import LayerReader
from kestrel.archive.entries import Entry, Kind, TarReader
from kestrel.build.leaks import Look, known_forms
from kestrel.content import Store
from kestrel.images import Image

_CACHES: Final = "caches of a package manager"
_NEEDLESS: Final = (
    (re.compile(r"var/lib/apt/lists/.+"), _CACHES, "rm -rf /var/lib/apt/lists/* in the same RUN"),
    (re.compile(r"var/cache/apt/.+\.(deb|bin)"), _CACHES, "apt-get clean in the same RUN"),
    (re.compile(r"var/cache/apk/.+"), _CACHES, "apk add --no-cache"),
    (re.compile(r"(root|home/[^/]+)/\.cache/pip/.+"), _CACHES, "pip install --no-cache-dir, or a cache mount"),
    (re.compile(r"(root|home/[^/]+)/\.npm/_cacache/.+"), _CACHES, "npm ci with --mount=type=cache,target=/root/.npm"),
    (
        re.compile(r"(usr/local/share/\.cache|(root|home/[^/]+)/\.cache)/yarn/.+"),
        _CACHES,
        "yarn cache clean in the same RUN",
    ),
    (re.compile(r"var/cache/(yum|dnf|libdnf5)/.+"), _CACHES, "dnf clean all in the same RUN"),
    (re.compile(r"(.+/)?\.git/.+"), "the history of a repository", "add .git to .dockerignore"),
)


@dataclass(slots=True)
class Waste:
    """Bytes that serve nothing, why, and what to do; `paths` are the largest."""

    why: str
    remedy: str
    size: int = 0
    count: int = 0
    paths: list[tuple[int, str]] = field(default_factory=list)

    def add(self, path: str, size: int) -> None:
        """Count one file."""
        self.size += size
        self.count += 1
        self.paths = sorted([*self.paths, (-size, path)])[:5]


@dataclass(slots=True)
class LayerContents:
    """What one layer added: bytes and files, and what of it is waste, by reason and remedy."""

    created_by: str
    diff_id: str
    size: int = 0
    files: int = 0
    waste: dict[tuple[str, str], Waste] = field(default_factory=dict)

    @property
    def wasted(self) -> int:
        """All wasted bytes."""
        return sum(each.size for each in self.waste.values())

    def note(self, why: str, remedy: str, path: str, size: int) -> None:
        """Count a file as waste."""
        self.waste.setdefault((why, remedy), Waste(why, remedy)).add(path, size)


@dataclass(slots=True)
class Key:
    """A key found in an image. `removed` when a later layer hides it, which takes nothing away."""

    what: str
    where: str
    line: int
    created_by: str
    removed: bool = False


@dataclass(slots=True)
class _Was:
    """The newest version of a path so far."""

    layer: int
    size: int
    digest: bytes
    meta: tuple[int, int, int]


@dataclass(slots=True)
class Contents:
    """What was found in an image."""

    layers: list[LayerContents]
    keys: list[Key]

    @property
    def size(self) -> int:
        """Bytes of files in all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def wasted(self) -> int:
        """Bytes of files that serve nothing."""
        return sum(layer.wasted for layer in self.layers)


def look_into(image: Image, content: Store) -> Contents:
    """Read an image's layers. Blocks; raises DataLoss for broken ones and NotFound for missing ones."""
    reading = _Reading(image)
    instructions = list(_instructions(image))
    for index, blob in enumerate(image.blobs):
        reading.begin(instructions[index], str(image.layers[index]))
        with content.open(blob.digest) as file:
            reading.layer(index, TarReader(LayerReader(file)))
    reading.configuration()
    return Contents(reading.layers, reading.keys)


def _instructions(image: Image) -> Iterator[str]:
    """Yield the line of history of each layer."""
    told = [line.created_by for line in image.config.history if not line.empty_layer]
    missing = len(image.layers) - len(told)
    yield from ["" for _ in range(missing)]
    yield from told[max(0, -missing) :]


class _Reading:
    def __init__(self, image: Image) -> None:
        self._image = image
        self._now: dict[str, _Was] = {}
        self.layers: list[LayerContents] = []
        self.keys: list[Key] = []

    def begin(self, created_by: str, diff_id: str) -> None:
        self.layers.append(LayerContents(created_by, diff_id))

    def layer(self, index: int, tar: TarReader) -> None:
        current = self.layers[index]
        for entry in tar:
            parent, name = posixpath.split(entry.name.strip("/"))
            if name == OPAQUE:
                self._gone(f"{parent}/", index, below=True)
            elif name.startswith(WHITEOUT):
                path = posixpath.join(parent, name.removeprefix(WHITEOUT))
                self._gone(path, index)
                self._gone(f"{path}/", index, below=True)
            elif entry.kind is Kind.FILE:
                self._file(current, index, posixpath.join(parent, name), entry, tar)

    def _file(self, current: LayerContents, index: int, path: str, entry: Entry, tar: TarReader) -> None:
        size = entry.size
        hasher, look = hashlib.sha256(), Look(f"/{path}", [])
        for piece in tar.data():
            hasher.update(piece)
            look.take(bytes(piece))
        current.size += size
        current.files += 1
        self.keys += [Key(what, where, line, current.created_by) for what, where, line in look.keys]
        now = _Was(index, size, hasher.digest(), (entry.mode, entry.uid, entry.gid))
        before = self._now.get(path)
        if before is not None and size:
            self._again(current, path, before, now)
        elif size:
            for expression, why, remedy in _NEEDLESS:
                if expression.fullmatch(path):
                    current.note(why, remedy, path, size)
                    break
        self._now[path] = now

    @staticmethod
    def _again(current: LayerContents, path: str, before: _Was, now: _Was) -> None:
        if before.digest != now.digest:
            current.note("replaces files of earlier layers", "write them once, or in one RUN", path, before.size)
        elif before.meta != now.meta:
            remedy = "set mode and owner where they are made: COPY --chmod --chown, or the same RUN"
            current.note("copies files only to change mode or owner", remedy, path, now.size)
        else:
            current.note("repeats files unchanged", "leave them out of this step", path, now.size)

    def _gone(self, path: str, index: int, *, below: bool = False) -> None:
        if below:
            found = [name for name in self._now if name.startswith(path)]
        else:
            found = [path] if path in self._now else []
        for name in found:
            was = self._now.pop(name)
            remedy = "remove it in the RUN that made it, or do not copy it in"
            self.layers[index].note("removes files of earlier layers, which stay in them", remedy, name, was.size)
            for key in self.keys:
                key.removed = key.removed or key.where == f"/{name}"

    def configuration(self) -> None:
        """Look at what is not in layers: environment, labels, history."""
        config = self._image.config
        places = [("the environment", text) for text in config.config.env]
        places += [(f"the label {name}", value) for name, value in config.config.labels.items()]
        places += [("the history", line.created_by) for line in config.history]
        for where, text in places:
            for what, _ in known_forms(text.encode("utf-8", "surrogateescape")):
                self.keys.append(Key(what, where, 0, ""))
