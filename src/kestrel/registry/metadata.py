"""What the registry remembers beside the bytes, as one seam: values, and the `Metadata` a backend has to be.

The rules (what may be pushed, moved, deleted, collected) are `Repositories`; a backend only keeps rows, and makes each
method one transaction. What a rule has to decide with the row in hand (is this tag immutable, is it still what the
client saw) is a `Guard`, which the backend calls inside the transaction, so that two clients cannot both be right.

Tags have a history: every move and removal is an entry that a tag can be rolled back to. What is deleted leaves a
tombstone (`Gone`), which keeps its bytes from the collector until the undo window is over. Times are seconds since the
epoch, and come from the caller.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest

Guard = Callable[[str, "Digest | None", "Digest | None"], None]
"""Called with a tag, what it stands for and what it is to stand for (None: nothing); raises to refuse the change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A manifest to be kept: its descriptor (with artifact type and annotations), and what it names."""

    descriptor: Descriptor
    subject: str = ""
    references: tuple[Digest, ...] = ()
    shows: tuple[Digest, ...] = ()
    """Blobs that the repository shows from now on, for one who has them already."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a tag's history. `digest` is None when the tag was removed."""

    tag: str
    digest: Digest | None
    moment: float
    actor: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A deleted manifest or, without `media_type`, a deleted blob, which can be brought back while its bytes last."""

    repository: str
    digest: Digest
    media_type: str
    tags: tuple[str, ...]
    moment: float


@dataclass(frozen=True, slots=True)
class TagRule:
    """Tags that match `tags` in repositories that match `repositories` cannot be moved or removed once they are set."""

    repositories: str
    tags: str


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """Repositories below `prefix/` are a cache of those of the registry `domain`.

    The `default` one is also meant by clients that take this registry for a mirror and do not say of which.
    """

    prefix: str
    domain: str
    default: bool = False


class Metadata(Protocol):
    """The rows of the registry. Safe to use from any thread; what returned is durable."""

    # -- blobs

    def shown(self, repository: str, digests: Sequence[Digest]) -> dict[Digest, float]:
        """Return those of the blobs that a repository shows, with when each was last pushed or asked about."""
        ...

    def shown_in(self, digest: Digest) -> list[str]:
        """Return repositories that show a blob, some if there are many."""
        ...

    def show(self, repository: str, digests: Iterable[Digest], moment: float) -> None:
        """Show blobs, or make them young again."""
        ...

    def hide(self, repository: str, digest: Digest, moment: float) -> bool:
        """Stop showing a blob and leave a tombstone; returns whether it was shown."""
        ...

    # -- manifests and tags

    def find(self, repository: str, version: str) -> "Descriptor | None":
        """Return what a tag or a digest stands for."""
        ...

    def known(self, repository: str, digests: Sequence[Digest]) -> set[Digest]:
        """Return those of the manifests that a repository has."""
        ...

    def record(
        self,
        repository: str,
        records: Sequence[Record],
        tags: Mapping[str, Digest],
        moment: float,
        *,
        actor: str,
        guard: Guard,
    ) -> None:
        """Keep manifests and point tags to them, all or nothing; clears their tombstones."""
        ...

    def remove(self, repository: str, digest: Digest, moment: float, *, actor: str, guard: Guard) -> bool:
        """Remove a manifest and every tag on it, and leave a tombstone; returns whether it was there."""
        ...

    def untag(self, repository: str, tag: str, moment: float, *, actor: str, guard: Guard) -> bool:
        """Remove a tag and nothing else; returns whether it was there."""
        ...

    # -- listings

    def exists(self, repository: str) -> bool:
        """Whether anything was ever pushed under this name."""
        ...

    def tags(self, repository: str, after: str, limit: int) -> list[str]:
        """Return tags in ASCII order, those after `after`, at most `limit` (-1: all)."""
        ...

    def catalog(self, after: str, limit: int) -> list[str]:
        """Return the names of repositories that hold a manifest, in ASCII order."""
        ...

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Return the manifests whose subject is this one."""
        ...

    def history(self, repository: str, tag: str = "") -> list[Change]:
        """Return what became of a tag, or of all, the latest first."""
        ...

    def gone(self, repository: str = "") -> list[Gone]:
        """Return the tombstones of a repository, or of all, the latest first."""
        ...

    # -- rules

    def tag_rules(self) -> list[TagRule]:
        """Return which tags are immutable."""
        ...

    def set_tag_rule(self, rule: TagRule, *, present: bool) -> bool:
        """Add or remove a rule; returns whether that changed anything."""
        ...

    def upstreams(self) -> list[UpstreamRule]:
        """Return which prefixes are caches."""
        ...

    def set_upstream(self, rule: UpstreamRule, *, present: bool) -> bool:
        """Add, replace or remove the rule for a prefix; returns whether that changed anything."""
        ...

    def parents(self, repository: str, digest: Digest) -> list[Digest]:
        """Return the manifests of a repository that name this one or this blob."""
        ...

    # -- for the collector

    def reasons(self, digests: Sequence[Digest], *, unnamed_since: float, gone_since: float) -> dict[Digest, str]:
        """Return those of the digests that have to be kept, each with the reason in words."""
        ...

    def expire(self, before: float) -> None:
        """Drop tombstones that are older than a moment."""
        ...

    def untagged(self, before: float, limit: int) -> list[tuple[str, Digest]]:
        """Return manifests that no tag and no index names, that refer to nothing, and are from before a moment."""
        ...

    def named(self) -> list[Digest]:
        """Return every manifest and everything that one of them names."""
        ...

    def forget(self, digests: Sequence[Digest], before: float) -> None:
        """Drop what is older than a moment of what shows these blobs, whose bytes are gone, and of their tombstones."""
        ...

    def counts(self) -> dict[str, int]:
        """Return how many repositories, manifests, tags and shown blobs there are."""
        ...
