"""Collection: ask who needs which blobs, sweep the rest, and say for each blob why.

No lock is held while marking. Three things keep a blob that a concurrent push or pull needs: a lease that was open
when the sweep began (its blobs may have found a root after the marking read it), whatever any lease has made or seen
since (the sweep holds a lease of its own, which hears of it), and youth (`grace`: a client pushes the layers of an
image in separate requests before the manifest that names them).

There are two kinds of roots. A plain one returns all it needs, and is called once, at the beginning. One with very
many (a `Keeper`: the registry) is asked about a few hundred blobs at a time, so that a collection of millions holds
none of them in memory and no transaction for long.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from kestrel.content.local import Blob, Store
from kestrel.oci.digest import Digest

BATCH = 512


class Keeper(Protocol):
    """A root that is asked."""

    def reasons(self, digests: Sequence[Digest]) -> Mapping[Digest, str]:
        """Return those of the digests that are needed, each with the reason in words."""
        ...

    def collected(self, digests: Sequence[Digest]) -> None:
        """Take note that these are gone, unless they have come again since."""
        ...


Root = Callable[[], Iterable[Digest]] | Keeper


@dataclass(frozen=True, slots=True)
class Verdict:
    """One blob, and why it stays or goes."""

    digest: Digest
    size: int
    reason: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Swept:
    """What a collection did, or with `dry_run` would do."""

    removed: tuple[Verdict, ...]
    kept: tuple[Verdict, ...]

    @property
    def freed(self) -> int:
        """Bytes of what was removed."""
        return sum(verdict.size for verdict in self.removed)


def sweep(
    store: Store,
    roots: "Iterable[Root] | Mapping[str, Root]",
    *,
    grace: float = 0.0,
    only: "Iterable[Digest] | None" = None,
    dry_run: bool = False,
) -> Swept:
    """Remove every blob (or every one of `only`) that no root names, no lease holds and that is older than `grace`.

    A mapping gives roots the names that appear in the reasons. When a root raises, nothing more is removed.
    """
    verdicts = list(sweeping(store, roots, grace=grace, only=only, dry_run=dry_run))
    return Swept(tuple(v for v in verdicts if v.removed), tuple(v for v in verdicts if not v.removed))


def sweeping(
    store: Store,
    roots: "Iterable[Root] | Mapping[str, Root]",
    *,
    grace: float = 0.0,
    only: "Iterable[Digest] | None" = None,
    dry_run: bool = False,
) -> Iterator[Verdict]:
    """Do the same step by step: a blob has gone, or stays, when its verdict is yielded."""
    with store.lease() as own:
        own.protect(store.protected())
        named, keepers = _mark(roots)
        blobs = store.walk() if only is None else store.look(only)
        while batch := list(islice(blobs, BATCH)):
            asked = [blob.digest for blob in batch]
            needed = {digest: why for keeper in keepers for digest, why in keeper.reasons(asked).items()}
            removed: list[tuple[Blob, str]] = []
            for blob in batch:
                reason = needed.get(blob.digest) or _reason_to_keep(blob, named, own.digests, grace)
                if reason is None and (dry_run or store.discard(blob, own.digests)):
                    removed.append((blob, "nothing names it"))
                    yield Verdict(blob.digest, blob.size, "nothing names it", removed=True)
                else:
                    yield Verdict(blob.digest, blob.size, reason or "a transfer under way took it up")
            if removed and not dry_run:
                store.record_collected(removed)
                for keeper in keepers:
                    keeper.collected([blob.digest for blob, _ in removed])


def _mark(roots: "Iterable[Root] | Mapping[str, Root]") -> tuple[dict[Digest, str], list[Keeper]]:
    pairs = roots.items() if isinstance(roots, Mapping) else ((getattr(r, "__qualname__", "root"), r) for r in roots)
    named: dict[Digest, str] = {}
    keepers: list[Keeper] = []
    for name, root in pairs:
        if callable(root):
            for digest in root():
                named.setdefault(digest, name)
        else:
            keepers.append(root)
    return named, keepers


def _reason_to_keep(blob: Blob, named: Mapping[Digest, str], leased: "set[Digest]", grace: float) -> str | None:
    if blob.digest in named:
        return f"named by {named[blob.digest]}"
    if blob.digest in leased:
        return "held by a transfer under way"
    age = time.time() - blob.touched
    if age < grace:
        return f"only {age:.0f} s old"
    return None
