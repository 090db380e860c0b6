"""Pushing to our own registry without sending anything: it has the same blobs, so a push is a few rows."""

from collections.abc import Callable
from typing import Any, BinaryIO

from kestrel.images.model import ImagePusher
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.reference import Reference
from kestrel.registry import Repositories


class LinkingPusher:
    """Links what goes to this node's registry, and hands everything else to the client."""

    def __init__(self, remote: ImagePusher, repositories: Repositories, hosts: frozenset[str]) -> None:
        self._remote = remote
        self._repositories = repositories
        self._hosts = hosts

    def with_credentials(self, credentials: Any) -> "LinkingPusher":
        """Return a pusher that logs in elsewhere with these."""
        return LinkingPusher(self._remote.with_credentials(credentials), self._repositories, self._hosts)

    async def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002 - the name that the protocol gives it
        mount_from: Reference | None = None,
        *,
        sent: Callable[[int], None] = lambda _: None,
    ) -> bool:
        """Say that our own registry has the blob: it is the one we would send."""
        if ref.domain in self._hosts:
            return False
        return await self._remote.push_blob(ref, descriptor, open, mount_from, sent=sent)

    async def push_manifest(self, ref: Reference, media_type: str, data: bytes) -> Descriptor:
        """Show the manifest in our own registry, under its tag if it has one, or send it."""
        if ref.domain in self._hosts:
            return self._repositories.link(ref.path, ref.tag, Digest.of(data))
        return await self._remote.push_manifest(ref, media_type, data)
