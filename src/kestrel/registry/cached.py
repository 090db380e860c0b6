"""What the pull-through cache keeps: which prefixes are caches of what, and manifests without all of their parts.

These rows are like those of pushed images, and the collector treats them so; only that a manifest may name blobs that
were never asked for.
"""

import time
from collections.abc import Iterable

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.content import Store
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import decode
from kestrel.oci.reference import Reference, is_repository
from kestrel.registry.metadata import Metadata, UpstreamRule
from kestrel.registry.repositories import Repositories, record_of


class CachedRepositories:
    """The cache's rules over the same rows as `Repositories`."""

    def __init__(self, metadata: Metadata, content: Store, repositories: Repositories) -> None:
        self._metadata = metadata
        self._content = content
        self._repositories = repositories
        self.rules = tuple(metadata.upstreams())
        """Which prefixes are caches of which registries."""

    def set_rule(self, rule: UpstreamRule, *, present: bool) -> bool:
        """Make a prefix a cache of a registry, or not any more; returns whether that changed anything."""
        if present:
            _check(rule)
        changed = self._metadata.set_upstream(rule, present=present)
        self.rules = tuple(self._metadata.upstreams())
        return changed

    def keep(self, repository: str, descriptor: Descriptor, data: bytes, tags: Iterable[str]) -> None:
        """Keep a manifest as it came. Raises InvalidArgument when it is none, Immutable."""
        document = decode(data, descriptor.media_type)
        with self._content.lease():
            self._content.put(data, descriptor.digest)
            self._metadata.record(
                repository,
                [record_of(descriptor, document)],
                dict.fromkeys(tags, descriptor.digest),
                time.time(),
                actor="pulled through",
                guard=self._repositories.guard(repository),
            )
        self._repositories.changed(repository)

    def named(self, repository: str, digest: Digest) -> "Descriptor | None":
        """Return what a manifest of the repository says of a blob, None when none names it."""
        for parent in self._metadata.parents(repository, digest):
            stored = self._repositories.manifest(repository, parent)
            if stored is None:
                continue
            document = decode(stored.data, stored.descriptor.media_type)
            for child in document.references():
                if child.digest == digest:
                    return child
        return None

    def adopt(self, repository: str, digest: Digest) -> bool:
        """Show a blob that is in the store for another reason; returns whether it is."""
        with self._content.lease():
            if not self._content.has(digest):
                return False
            self._repositories.add_blob(repository, digest)
            return True


def _check(rule: UpstreamRule) -> None:
    if not is_repository(rule.prefix):
        raise InvalidArgument(f"invalid prefix {rule.prefix[:80]!r}", hint="use a name such as hub")
    try:
        right = Reference.parse(f"{rule.domain}/a/b").domain == rule.domain
    except KestrelError:
        right = False
    if not right:
        raise InvalidArgument(
            f"{rule.domain[:80]!r} is no registry's name", hint="write docker.io, ghcr.io or a host with its port"
        )
