"""Collection: mark what the roots name, sweep the rest, and say for each blob why.

No lock is held while marking. Three things keep a blob that a concurrent push or pull needs: a lease that was open
when the sweep began (its blobs may have found a root after the marking read it), a lease open now, and youth
(`grace`: a client pushes the layers of an image in separate requests before the manifest that names them).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kestrel.content.local import Blob, Store
from kestrel.oci.digest import Digest

Root = Callable[[], Iterable[Digest]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One blob, and why it stays or goes."""

    digest: Digest
    size: int
    reason: str


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

    A root is called once and returns all it needs, transitively. A mapping gives roots the names that appear in
    the reasons. When a root raises, nothing is removed.
    """
    with store.lease() as own:
        own.protect(store.protected())
        named = _mark(roots)
        wanted = None if only is None else set(only)
        removed: list[tuple[Blob, str]] = []
        kept: list[Verdict] = []
        for blob in list(store.walk()):
            if wanted is not None and blob.digest not in wanted:
                continue
            reason = _reason_to_keep(blob, named, own.digests, grace)
            if reason is None and (dry_run or store.discard(blob, own.digests)):
                removed.append((blob, "nothing names it"))
            else:
                kept.append(Verdict(blob.digest, blob.size, reason or "a transfer under way took it up"))
    if removed and not dry_run:
        store.record_collected(removed)
    return Swept(tuple(Verdict(blob.digest, blob.size, reason) for blob, reason in removed), tuple(kept))


def _mark(roots: "Iterable[Root] | Mapping[str, Root]") -> dict[Digest, str]:
    pairs = roots.items() if isinstance(roots, Mapping) else ((getattr(r, "__qualname__", "root"), r) for r in roots)
    named: dict[Digest, str] = {}
    for name, root in pairs:
        for digest in root():
            named.setdefault(digest, name)
    return named


def _reason_to_keep(blob: Blob, named: Mapping[Digest, str], leased: "set[Digest]", grace: float) -> str | None:
    if blob.digest in named:
        return f"named by {named[blob.digest]}"
    if blob.digest in leased:
        return "held by a transfer under way"
    age = time.time() - blob.touched
    if age < grace:
        return f"only {age:.0f} s old"
    return None
