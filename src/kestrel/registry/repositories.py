"""The rules of the registry: what may be pushed, shown, moved and deleted, and what the collector has to leave alone.

Bytes live in the content store, shared with the image store; rows behind `Metadata`. A repository shows a blob only
after somebody pushed or mounted it there: knowing a digest is no right to read it. Each change is one transaction,
made after its bytes are durable, so what was acknowledged is whole after a crash, and what was not leaves bytes that
a collection removes.

For the collector (`reasons`): a manifest keeps itself and everything it names, and goes on doing so for the undo window
after it was deleted; a blob that no manifest names is kept for a day from when it was pushed, mounted or last asked
about, because a client that is told "exists" will not send it again. Checks of existence that lead to a promise are
made under a lease of the content store, so that a collection running at the same moment sees them.

All methods are synchronous; the door calls them in threads.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kestrel.base.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound
from kestrel.content import Store
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index, Manifest, decode
from kestrel.oci.reference import is_repository, is_tag
from kestrel.registry.conditions import ANY, Condition
from kestrel.registry.metadata import Change, Gone, Guard, Metadata, Record, TagRule
from kestrel.registry.patterns import check, matches

_REFRESH = 3600.0  # a link asked about is made young again only when it is this old: a HEAD should not be a write
DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest as it was pushed."""

    descriptor: Descriptor
    data: bytes


class Immutable(Conflict):
    """A rule forbids to move or remove this tag."""


class MissingChildren(FailedPrecondition):
    """A manifest names what its repository does not have; `digests` are the ones."""

    def __init__(self, repository: str, digests: Sequence[Digest]) -> None:
        super().__init__(
            f"the manifest names {len(digests)} thing{'s' * (len(digests) != 1)} that {repository} does not have",
            hint="push the blobs and the manifests of an index first",
        )
        self.digests = tuple(digests)


class Repositories:
    """Names, tags and links over a content store."""

    def __init__(
        self,
        metadata: Metadata,
        content: Store,
        *,
        sparse: bool = False,
        unnamed_seconds: float = DAY,
        undo_seconds: float = DAY,
    ) -> None:
        self._metadata = metadata
        self._content = content
        self._sparse = sparse
        self._unnamed = unnamed_seconds
        self._undo = undo_seconds
        self._listeners: list[Callable[[str], None]] = []
        self._rules = metadata.tag_rules()

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a repository's name after each change of its manifests or tags, in any thread."""
        self._listeners.append(listener)

    # -- blobs

    def has_blob(self, repository: str, digest: Digest) -> "int | None":
        """Return the size of a blob the repository shows, or None. It then stays at least as long as a new one."""
        shown = self._metadata.shown(repository, [digest])
        if not shown:
            return None
        with self._content.lease():
            try:
                size = self._content.size(digest)
            except NotFound:
                return None
            if shown[digest] < time.time() - min(_REFRESH, self._unnamed / 2):
                self._metadata.show(repository, [digest], time.time())
            return size

    def add_blob(self, repository: str, digest: Digest) -> None:
        """Show a blob that is in the content store. Hold a lease from before it was committed until this returns."""
        self._metadata.show(repository, [digest], time.time())

    def mount(
        self, repository: str, digest: Digest, source: "str | None", may_read: Callable[[str], bool] = lambda _: True
    ) -> bool:
        """Show a blob that `source`, or with None any repository, shows to this client already; False if none does."""
        with self._content.lease():
            sources = self._metadata.shown_in(digest) if source is None else [source]
            found = any(may_read(name) and self.has_blob(name, digest) is not None for name in sources)
            if found:
                self.add_blob(repository, digest)
        return found

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Stop showing a blob; returns whether it was shown."""
        return self._metadata.hide(repository, digest, time.time())

    # -- manifests and tags

    def manifest(self, repository: str, version: str) -> "Stored | None":
        """Return the manifest under a tag or a digest, or None."""
        found = self._metadata.find(repository, version)
        if found is None:
            return None
        data = self._content.read(found.digest)
        return Stored(Descriptor(media_type=found.media_type, digest=found.digest, size=len(data)), data)

    def put_manifest(
        self,
        repository: str,
        digest: Digest,
        media_type: str,
        data: bytes,
        tags: Iterable[str] = (),
        *,
        condition: Condition = ANY,
        actor: str = "",
    ) -> "Manifest | Index":
        """Store a manifest under its digest and these tags; returns it decoded.

        Raises InvalidArgument for what is no manifest of that type, DataLoss for another digest, MissingChildren,
        Immutable for a tag that may not move, Mismatch for one that is not what `condition` says.
        """
        document = decode(data, media_type)
        with self._content.lease():
            missing = [] if self._sparse else self._missing(repository, document)
            if missing:
                raise MissingChildren(repository, missing)
            self._content.put(data, digest)
            self._metadata.record(
                repository,
                [record_of(Descriptor(media_type=media_type, digest=digest, size=len(data)), document)],
                dict.fromkeys(tags, digest),
                time.time(),
                actor=actor,
                guard=self.guard(repository, condition),
            )
        self.changed(repository)
        return document

    def link(self, repository: str, tag: str, digest: Digest) -> Descriptor:
        """Show a manifest of the content store, and all it names, under a tag (if any): a push that copies nothing.

        Of an index, the manifests that are not here are left out, as the image store keeps only the platforms it
        pulled. Raises NotFound when the manifest is not in the store, FailedPrecondition when something that an
        image needs is not, Immutable.
        """
        if not is_repository(repository):
            raise InvalidArgument(f"invalid repository {repository[:300]!r}", hint="use lower case, digits and . _ - /")
        if tag and not is_tag(tag):
            raise InvalidArgument(f"invalid tag {tag[:140]!r}")
        with self._content.lease():
            plan = list(self._closure(digest))
            records = [
                replace(record_of(descriptor, document), shows=tuple(self._here(document)))
                for descriptor, document in reversed(plan)
            ]
            tags = {tag: digest} if tag else {}
            guard = self.guard(repository)
            self._metadata.record(repository, records, tags, time.time(), actor="this node", guard=guard)
        self.changed(repository)
        return plan[0][0]

    def delete_manifest(self, repository: str, digest: Digest, *, condition: Condition = ANY, actor: str = "") -> bool:
        """Remove a manifest and every tag on it; returns whether it was there. It can be restored for a while."""
        guard = self.guard(repository, condition)
        gone = self._metadata.remove(repository, digest, time.time(), actor=actor, guard=guard)
        self.changed(repository)
        return gone

    def delete_tag(self, repository: str, tag: str, *, condition: Condition = ANY, actor: str = "") -> bool:
        """Remove one tag and nothing else; returns whether it was there."""
        guard = self.guard(repository, condition)
        gone = self._metadata.untag(repository, tag, time.time(), actor=actor, guard=guard)
        self.changed(repository)
        return gone

    # -- undoing

    def history(self, repository: str, tag: str = "") -> list[Change]:
        """Return what became of a tag, or of all, the latest first."""
        return self._metadata.history(repository, tag)

    def gone(self, repository: str = "") -> list[Gone]:
        """Return what was deleted and can still be brought back, the latest first."""
        since = time.time() - self._undo
        return [each for each in self._metadata.gone(repository) if each.moment > since]

    def rollback(self, repository: str, tag: str, to: "Digest | None" = None, *, actor: str = "") -> Digest:
        """Point a tag to what it stood for before, or to `to`, one of those; returns the digest.

        Raises NotFound when its history has no such entry, or the manifest cannot be had any more; Immutable.
        """
        history = self._metadata.history(repository, tag)
        now = history[0].digest if history else None
        before = [change.digest for change in history if change.digest and change.digest != now]
        wanted = to or (before[0] if before else None)
        if wanted is None or wanted not in before:
            raise NotFound(
                f"{repository}:{tag} never stood for {to or 'anything else'}",
                hint=f"see `kestrel registry history {repository}:{tag}`",
            )
        self._revive(repository, wanted, [tag], actor)
        return wanted

    def restore(self, repository: str, digest: Digest, *, actor: str = "") -> Gone:
        """Bring back what was deleted, with those of its tags that stand for nothing now. Raises NotFound."""
        found = next((each for each in self.gone(repository) if each.digest == digest), None)
        if found is None:
            raise NotFound(
                f"{repository} has no deleted {digest} that could be restored",
                hint=f"see `kestrel registry deleted {repository}`",
            )
        if not found.media_type:
            with self._content.lease():
                self._content.size(digest)
                self.add_blob(repository, digest)
            return found
        free = [tag for tag in found.tags if self._metadata.find(repository, tag) is None]
        self._revive(repository, digest, free, actor)
        return found

    def _revive(self, repository: str, digest: Digest, tags: Sequence[str], actor: str) -> None:
        """Record a manifest again whose bytes, and those of all it names, are still in the store."""
        known = self._metadata.find(repository, digest)
        told = next((each.media_type for each in self._metadata.gone(repository) if each.digest == digest), "")
        with self._content.lease():
            self._content.size(digest)  # from here on the lease keeps it
            data = self._content.read(digest)
            media_type = known.media_type if known else told
            document = decode(data, media_type)
            descriptor = Descriptor(media_type=media_type or document.media_type, digest=digest, size=len(data))
            lacking = [] if known else [child for child in self._needed(document) if not self._content.has(child)]
            if lacking:
                raise NotFound(f"{len(lacking)} parts of {digest} were collected, first {lacking[0]}")
            record = replace(record_of(descriptor, document), shows=() if known else tuple(self._here(document)))
            guard = self.guard(repository)
            tagged = dict.fromkeys(tags, digest)
            self._metadata.record(repository, [record], tagged, time.time(), actor=actor, guard=guard)
        self.changed(repository)

    # -- rules

    def tag_rules(self) -> list[TagRule]:
        """Return which tags are immutable."""
        return list(self._rules)

    def set_tag_rule(self, rule: TagRule, *, present: bool) -> bool:
        """Make tags immutable from now on, or let them be moved again; returns whether that changed anything."""
        check(rule.repositories)
        check(rule.tags)
        changed = self._metadata.set_tag_rule(rule, present=present)
        self._rules = self._metadata.tag_rules()
        return changed

    def guard(self, repository: str, condition: Condition = ANY) -> Guard:
        """Return what refuses to change a tag that is immutable, or not what `condition` says."""

        def guard(tag: str, current: "Digest | None", wanted: "Digest | None") -> None:
            condition.demand(tag, current)
            if current is None or current == wanted:
                return
            for rule in self._rules:
                if matches(rule.repositories, repository) and matches(rule.tags, tag):
                    raise Immutable(
                        f"the tag {tag} of {repository} is immutable and stands for {current}",
                        hint=f"push under another tag; the rule is {rule.repositories}:{rule.tags}",
                    )

        return guard

    # -- listings

    def exists(self, repository: str) -> bool:
        """Whether anything was ever pushed under this name."""
        return self._metadata.exists(repository)

    def tags(self, repository: str, after: str = "", limit: int = -1) -> list[str]:
        """Return tags in ASCII order, those after `after`, at most `limit` (-1: all)."""
        return self._metadata.tags(repository, after, limit)

    def catalog(self, after: str = "", limit: int = -1) -> list[str]:
        """Return the names of repositories that hold a manifest, in ASCII order."""
        return self._metadata.catalog(after, limit)

    def counts(self) -> dict[str, int]:
        """Return how many repositories, manifests, tags and shown blobs there are."""
        return self._metadata.counts()

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Return descriptors of the manifests whose subject is this one, those of a fallback tag included.

        Distribution-spec, "Enabling the Referrers API": what clients wrote into the tag schema before must stay
        visible.
        """
        found = {entry.digest: entry for entry in self._metadata.referrers(repository, subject)}
        fallback = self.manifest(repository, f"{subject.algorithm[:32]}-{subject.hex[:64]}")
        if fallback and media_types.is_index(fallback.descriptor.media_type):
            for entry in Index.decode(fallback.data, fallback.descriptor.media_type).manifests:
                found.setdefault(entry.digest, entry)
        return [found[digest] for digest in sorted(found)]

    # -- for the collector

    def reasons(self, digests: Sequence[Digest]) -> dict[Digest, str]:
        """Return those of the digests that the registry needs kept, each with the reason in words."""
        now = time.time()
        return self._metadata.reasons(digests, unnamed_since=now - self._unnamed, gone_since=now - self._undo)

    def collected(self, digests: Sequence[Digest]) -> None:
        """Forget what showed these blobs, or remembered that they were deleted: their bytes are gone.

        A row that is younger than what `reasons` keeps belongs to one who has pushed the blob again since.
        """
        self._metadata.forget(digests, time.time() - self._unnamed)

    def tidy(self) -> None:
        """Forget what cannot be restored any more."""
        self._metadata.expire(time.time() - self._undo)

    def remove_untagged(self, age: float, *, dry_run: bool = False) -> list[tuple[str, Digest]]:
        """Delete manifests that no tag or index has named for `age` seconds; returns them. They can be restored."""
        found = self._metadata.untagged(time.time() - age, -1)
        for repository, digest in found if not dry_run else ():
            self.delete_manifest(repository, digest, actor="collection of untagged manifests")
        return found

    def named(self) -> list[Digest]:
        """Return every manifest and everything that one of them names: what has to be in the store."""
        return self._metadata.named()

    # -- what documents name

    def _needed(self, document: "Manifest | Index") -> list[Digest]:
        if isinstance(document, Index):
            return [child.digest for child in document.manifests]
        return [child.digest for child in document.references() if not media_types.is_foreign(child.media_type)]

    def _here(self, document: "Manifest | Index") -> list[Digest]:
        """Return the blobs of an image that its repository can show."""
        if isinstance(document, Index):
            return []
        return [
            child.digest
            for child in document.references()
            if not media_types.is_foreign(child.media_type) or self._content.has(child.digest)
        ]

    def _missing(self, repository: str, document: "Manifest | Index") -> list[Digest]:
        wanted = list(dict.fromkeys(self._needed(document)))
        shown = (self._metadata.known if isinstance(document, Index) else self._metadata.shown)(repository, wanted)
        return [digest for digest in wanted if digest not in shown or not self._content.has(digest)]

    def _closure(self, digest: Digest) -> Iterator[tuple[Descriptor, "Manifest | Index"]]:
        """Yield the manifest and, of an index, those of its children that are here; each once, parents first."""
        waiting, seen = [digest], {digest}
        while waiting:
            current = waiting.pop(0)
            self._content.size(current)  # from here on the caller's lease keeps it
            data = self._content.read(current)
            document = decode(data)
            kind = document.media_type or (
                media_types.OCI_INDEX if isinstance(document, Index) else media_types.OCI_MANIFEST
            )
            yield Descriptor(media_type=kind, digest=current, size=len(data)), document
            if isinstance(document, Index):
                here = [child.digest for child in document.manifests if self._content.has(child.digest)]
                waiting += [child for child in here if child not in seen]
                seen.update(here)
                continue
            lacking = [child for child in self._needed(document) if not self._content.has(child)]
            if lacking:
                raise FailedPrecondition(
                    f"{len(lacking)} blobs of {current.short} are not in the store, first {lacking[0]}",
                    hint="pull the image again",
                )

    def changed(self, repository: str) -> None:
        """Tell whoever listens that manifests or tags are others now."""
        for listener in self._listeners:
            listener(repository)


def record_of(descriptor: Descriptor, document: "Manifest | Index") -> Record:
    """Return what is kept of a manifest; a referrer's type is its own word, else that of its configuration."""
    artifact_type = document.artifact_type
    if not artifact_type and isinstance(document, Manifest):
        artifact_type = document.config.media_type
    return Record(
        descriptor=Descriptor(
            media_type=descriptor.media_type,
            digest=descriptor.digest,
            size=descriptor.size,
            artifact_type=artifact_type,
            annotations=document.annotations,
        ),
        subject=document.subject.digest if document.subject else "",
        references=tuple(dict.fromkeys(child.digest for child in document.references())),
    )
