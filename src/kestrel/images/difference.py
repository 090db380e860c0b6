"""What sets two images apart: the files a container of each would see, and what it would be told.

Files are compared by what they are (kind, mode, owner, content, attributes), never by their time or by the layer that
brought them: two builds that differ only in how they came about are the same here.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kestrel.archive.apply import OPAQUE, WHITEOUT
from kestrel.archive.compression import LayerReader
from kestrel.archive.entries import Entry, Kind, TarReader
from kestrel.content import Store
from kestrel.images.model import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One path of a root filesystem. `content` is the SHA-256 of a file's bytes, a link's target, a device's number."""

    kind: str
    mode: int
    owner: str
    size: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One path. `what` is added, removed or changed; `how` says in which respects, old and new."""

    path: str
    what: str
    how: tuple[str, ...]
    size: int
    """Bytes by which the image grew."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything: files in the order of their paths, and lines about the configuration."""

    files: tuple[Change, ...]
    configuration: tuple[str, ...]


def compare(content: Store, old: Image, new: Image) -> Difference:
    """Compare two images whose blobs are here. Blocks: every layer of both is read, what both begin with once."""
    shared = 0
    for one, other in zip(old.layers, new.layers, strict=False):
        if one != other:
            break
        shared += 1
    tree: dict[str, File] = {}
    _stack(content, old.blobs[:shared], tree)
    before, after = dict(tree), dict(tree)
    _stack(content, old.blobs[shared:], before)
    _stack(content, new.blobs[shared:], after)
    return Difference(tuple(_changes(before, after)), tuple(_told(old, new)))


def _changes(before: dict[str, File], after: dict[str, File]) -> Iterator[Change]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            yield Change(f"/{path}", "added", (), new.size)
        elif new is None and old is not None:
            yield Change(f"/{path}", "removed", (), -old.size)
        elif old is not None and new is not None and old != new:
            yield Change(f"/{path}", "changed", tuple(_respects(old, new)), new.size - old.size)


def _respects(old: File, new: File) -> Iterator[str]:
    if old.kind != new.kind:
        yield f"{old.kind} became {new.kind}"
    if old.mode != new.mode:
        yield f"mode {old.mode:04o} became {new.mode:04o}"
    if old.owner != new.owner:
        yield f"owner {old.owner} became {new.owner}"
    if old.content != new.content and old.kind == new.kind:
        yield "content" if new.kind == Kind.FILE.name.lower() else f"{old.content} became {new.content}"
    if old.xattrs != new.xattrs:
        yield "extended attributes"


def _told(old: Image, new: Image) -> Iterator[str]:
    before, after = old.config.config.to_json(), new.config.config.to_json()
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield from _lines(name, before.get(name), after.get(name))


def _lines(name: str, old: Any, new: Any) -> Iterator[str]:
    """Say how one field changed: of lists of words such as Env only the words that did."""
    if name == "Env":
        yield from (f"Env - {entry}" for entry in old or () if entry not in (new or ()))
        yield from (f"Env + {entry}" for entry in new or () if entry not in (old or ()))
        return
    yield f"{name} {'-' if old is None else old} became {'-' if new is None else new}"


def _stack(content: Store, blobs: Sequence[Any], tree: dict[str, File]) -> None:
    """Put layers on top of a tree, as overlayfs would show them."""
    for blob in blobs:
        with content.open(blob.digest) as file:
            tar, mine = TarReader(LayerReader(file)), set[str]()
            for entry in tar:
                _enter(entry, tar, tree, mine)


def _enter(entry: Entry, tar: TarReader, tree: dict[str, File], mine: set[str]) -> None:
    parent, _, name = entry.name.rpartition("/")
    if name == OPAQUE:
        _drop(tree, f"{parent}/" if parent else "", mine)
        return
    if name.startswith(WHITEOUT):
        hidden = f"{parent}/{name.removeprefix(WHITEOUT)}".lstrip("/")
        tree.pop(hidden, None)
        _drop(tree, f"{hidden}/", mine)
        return
    if entry.kind is Kind.HARDLINK:
        tree[entry.name] = tree[entry.link]
    else:
        tree[entry.name] = _file(entry, tar)
    if entry.kind is not Kind.DIRECTORY:
        _drop(tree, f"{entry.name}/", mine)
    mine.add(entry.name)


def _drop(tree: dict[str, File], prefix: str, keep: set[str]) -> None:
    for path in [path for path in tree if path.startswith(prefix) and path not in keep]:
        del tree[path]


def _file(entry: Entry, tar: TarReader) -> File:
    content = entry.link
    if entry.kind is Kind.FILE:
        hasher = hashlib.sha256()
        for piece in tar.data():
            hasher.update(piece)
        content = hasher.hexdigest()
    elif entry.kind in (Kind.CHARACTER, Kind.BLOCK):
        content = f"{entry.major}:{entry.minor}"
    return File(
        kind=entry.kind.name.lower(),
        mode=entry.mode,
        owner=f"{entry.uid}:{entry.gid}",
        size=entry.size,
        content=content,
        xattrs=tuple(sorted(entry.xattrs.items())),
    )
