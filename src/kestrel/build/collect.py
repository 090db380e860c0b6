"""What the builder keeps between builds, and the rules by which it lets go of it, each with its reason.

Kept are steps (a record and the layer it left), cache mounts, downloads, repositories, contexts. `judge` only says of
each what becomes of it and why, so that a collection can be shown before it is carried out. The size is a ceiling:
nothing pins anything, only what a running build uses stays whatever it takes. A step whose layer an image has as well
costs nothing and stays until everything has to go.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kestrel.archive.trees import remove_tree
from kestrel.base.units import print_duration, print_size

WEEK: Final = 7 * 86400.0
STEP, MOUNT, DOWNLOAD, REPOSITORY, CONTEXT = "step", "cache mount", "download", "repository", "context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may stay: what was used within so many seconds, and no more than `ceiling` bytes of it; or nothing."""

    unused_for: float = WEEK
    ceiling: int | None = None
    everything: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One thing that is kept. `where` is the place in a project that had it last, `image` one that has its layer."""

    kind: str
    name: str
    size: int
    used: float
    key: str
    where: str = ""
    image: str = ""
    layer: str = ""
    blob: str = ""
    in_use: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What becomes of it, and why. `cost` is the bytes that go with it, 0 when something else keeps them."""

    held: Held
    cost: int
    removed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a collection did, or would do: the least recently used first. `freed` is in bytes."""

    judged: tuple[Judged, ...]
    freed: int

    @property
    def removed(self) -> tuple[Judged, ...]:
        """What went."""
        return tuple(each for each in self.judged if each.removed)


def judge(held: Iterable[Held], policy: Policy, now: float) -> tuple[Judged, ...]:
    """Say of each what becomes of it."""
    ordered = sorted(held, key=lambda each: (each.used, each.name))
    costs = _costs(ordered)
    verdicts = [_by_age(each, costs[each.key], policy, now) for each in ordered]
    if policy.ceiling is None:
        return tuple(verdicts)
    left = sum(each.cost for each in verdicts if not each.removed)
    for number, each in enumerate(verdicts):
        if left <= policy.ceiling:
            break
        if not each.removed and each.cost and not each.held.in_use:
            why = f"the least recently used of more than {print_size(policy.ceiling)}"
            verdicts[number] = Judged(held=each.held, cost=each.cost, removed=True, reason=why)
            left -= each.cost
    return tuple(verdicts)


def _costs(ordered: Sequence[Held]) -> dict[str, int]:
    """Give the bytes of a layer that several steps left to the one that was used last."""
    last = {each.layer: each.key for each in ordered if each.layer}
    return {
        each.key: 0 if each.image or (each.layer and last[each.layer] != each.key) else each.size for each in ordered
    }


def _by_age(each: Held, cost: int, policy: Policy, now: float) -> Judged:
    ago = print_duration(max(0.0, now - each.used))
    removed = False
    if each.in_use:
        reason = "a build that runs uses it"
    elif policy.everything:
        removed, reason = True, "nothing is to stay"
    elif now - each.used >= policy.unused_for:
        if each.image:
            reason = f"not used for {ago}, but the image {each.image} has its layer: it costs nothing"
        else:
            removed, reason = True, f"not used for {ago}"
    else:
        place = f" by {each.where}" if each.where else ""
        shared = f"; the image {each.image} has its layer too" if each.image else ""
        reason = f"used {ago} ago{place}{shared}"
    return Judged(held=each, cost=cost, removed=removed, reason=reason)


def directories(place: Path, kind: str, busy: frozenset[Path] = frozenset()) -> Iterator[Held]:
    """Yield what is in a directory of the builder; one is known by its own name, or by the note beside it."""
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.suffix == NOTE or path.name.startswith("."):  # what is being made, or removed
            continue
        note = path.with_name(path.name + NOTE)
        try:
            used = (note if note.exists() else path).stat().st_mtime
            name = note.read_text("utf-8", "surrogateescape") if note.exists() else path.name
        except FileNotFoundError:
            continue
        yield Held(kind=kind, name=name, size=_room(path), used=used, key=str(path), in_use=path in busy)


NOTE: Final = ".id"
"""What is behind the name of a file that says what a directory is; its time is that of the last use."""


def remember(path: Path, name: str) -> None:
    """Say what a directory is, and that it was used now."""
    path.with_name(path.name + NOTE).write_text(name, "utf-8", "surrogateescape")


def remove(path: Path) -> None:
    """Remove a directory and its note."""
    remove_tree(path)
    path.with_name(path.name + NOTE).unlink(missing_ok=True)


def _room(path: Path) -> int:
    """Return the bytes of all files below a path, as they are allocated."""
    total = path.lstat().st_blocks * 512
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
