"""`build --verify`: the same build a second time, and the first thing that came out differently.

Every step runs again on what the first build left below it, so one step that cannot be repeated does not hide
behind another; of the first one that left other bytes, the files are compared.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kestrel.archive.compression import LayerReader
from kestrel.archive.entries import TarReader
from kestrel.build.solver import StepResult
from kestrel.content import Store
from kestrel.oci.digest import Digest

_Seen = dict[str, tuple[tuple[object, ...], str]]
_FIELDS = ("kind", "mode", "user", "group", "size", "time", "link target", "extended attributes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first step that cannot be repeated, a file in which it shows, and how."""

    step: str
    title: str
    file: str
    what: str


def first_difference(first: Sequence[StepResult], second: Sequence[StepResult], content: Store) -> Difference | None:
    """Compare what two runs of one plan left; None when nothing differs. Blocks."""
    for one, other in zip(first, second, strict=True):
        if one.layer.diff_id != other.layer.diff_id:
            file, what = _compare(_read(one, content), _read(other, content))
            return Difference(step=one.id, title=one.title, file=file, what=what)
    return None


def _read(step: StepResult, content: Store) -> _Seen:
    if not step.layer.blob:
        return {}
    found: _Seen = {}
    with content.open(Digest.parse(step.layer.blob)) as file:
        reader = TarReader(LayerReader(file))
        for entry in reader:
            hasher = hashlib.sha256()
            for piece in reader.data():
                hasher.update(piece)
            about = (entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.link, entry.xattrs)
            found[entry.name] = about, hasher.hexdigest()
    return found


def _compare(first: _Seen, second: _Seen) -> tuple[str, str]:
    for name in sorted({*first, *second}):
        if name not in second:
            return f"/{name}", "is only there the first time"
        if name not in first:
            return f"/{name}", "is only there the second time"
        (about, digest), (other, other_digest) = first[name], second[name]
        differing = [field for field, a, b in zip(_FIELDS, about, other, strict=True) if a != b]
        if digest != other_digest:
            differing.append("content")
        if differing:
            return f"/{name}", f"has another {' and '.join(differing)}"
    return "", "has its files in another order"
