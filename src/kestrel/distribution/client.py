"""The client of any registry, as the image store and the daemon hold it: one object over the verbs of this package."""

from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, Self

import aiohttp

from kestrel.base.clock import Clock
from kestrel.base.errors import DataLoss
from kestrel.distribution import fetch, push, referrers, resolve
from kestrel.distribution.credentials import Anonymous, Credentials, FileConfig
from kestrel.distribution.hosts import Hosts, Settings
from kestrel.distribution.transport import Call, Transport, next_page
from kestrel.http.client import session as open_session
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.platform import Platform
from kestrel.oci.records import parse_json
from kestrel.oci.reference import Reference

_LIST_LIMIT = 16 * 1024 * 1024


class Client:
    """Resolves, fetches and pushes. Give it a session (`http.client.session`), or let `open` make one."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: "Credentials | None" = None,
        hosts: "Hosts | None" = None,
        *,
        settings: "Settings | None" = None,
        clock: "Clock | None" = None,
    ) -> None:
        settings = settings or Settings()
        if credentials is None:
            credentials = FileConfig(settings.docker_config) if settings.docker_config else Anonymous()
        self._session = session
        self._transport = Transport(
            session, credentials=credentials, hosts=hosts or Hosts(settings), settings=settings, clock=clock
        )

    @classmethod
    def open(cls, settings: "Settings | None" = None, *, credentials: "Credentials | None" = None) -> Self:
        """Return a client with a session of its own; `close` it, or use `async with`. Needs a running event loop."""
        return cls(open_session(), credentials, settings=settings)

    def with_credentials(self, credentials: "Credentials | None") -> "Client":
        """Return a client that is somebody else over the same connections; None returns this one."""
        if credentials is None:
            return self
        other = Client.__new__(Client)
        other._session = self._session
        other._transport = self._transport.with_credentials(credentials)
        return other

    async def resolve(self, ref: Reference, platform: "Platform | None" = None) -> Descriptor:
        """Return what `ref` names, or the image in it for `platform`. Raises NotFound."""
        return await resolve.resolve(self._transport, ref, platform)

    async def manifest(self, ref: Reference, descriptor: "Descriptor | None" = None) -> tuple[Descriptor, bytes]:
        """Return descriptor and exact bytes of a manifest or index, verified."""
        return await resolve.manifest(self._transport, ref, descriptor)

    def blob(
        self, ref: Reference, descriptor: Descriptor, offset: int = 0, *, verify: bool = True
    ) -> AsyncIterator[bytes]:
        """Yield a blob from `offset` on; see `fetch.blob`."""
        return fetch.blob(self._transport, ref, descriptor, offset, verify=verify)

    async def has_blob(self, ref: Reference, digest: Digest) -> bool:
        """Whether the repository of `ref` has the blob."""
        return await push.has_blob(self._transport, ref, digest)

    async def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002 - what it does
        mount_from: "Reference | None" = None,
        *,
        sent: push.Sent = push._silent,
    ) -> bool:
        """Make the repository of `ref` have a blob; returns whether bytes had to be sent."""
        return await push.push_blob(self._transport, ref, descriptor, open, mount_from=mount_from, sent=sent)

    async def push_manifest(self, ref: Reference, media_type: str, data: bytes) -> Descriptor:
        """Store a manifest under the tag or digest of `ref`."""
        return await push.push_manifest(self._transport, ref, media_type, data)

    async def referrers(self, ref: Reference, subject: Digest) -> list[Descriptor]:
        """Return the manifests in the repository of `ref` whose subject it is."""
        return await referrers.referrers(self._transport, ref, subject)

    async def delete_manifest(self, ref: Reference) -> None:
        """Remove a tag, or by digest a manifest and every tag on it."""
        call = Call(
            method="DELETE",
            domain=ref.domain,
            repository=ref.path,
            path=f"{ref.path}/manifests/{ref.version}",
            what=f"image {ref.familiar()}",
            scopes=(f"repository:{ref.path}:delete",),
            good=(200, 202, 204),
        )
        async with self._transport.send(call):
            pass

    async def check(self, domain: str) -> None:
        """Ask a registry for nothing, to see whether it is one and lets us in. Raises Unauthenticated, Unavailable."""
        async with self._transport.send(Call(method="GET", domain=domain, path="", what=f"registry {domain}")):
            pass

    async def tags(self, ref: Reference) -> list[str]:
        """Return all tags of the repository, in the registry's order."""
        scopes = tuple(resolve.pull_scope(ref.path))
        return await self._list(ref.domain, ref.path, f"{ref.path}/tags/list", "tags", scopes)

    async def catalog(self, domain: str) -> list[str]:
        """Return the repositories a registry admits to having; many public ones admit to none."""
        return await self._list(domain, "", "_catalog", "repositories", ("registry:catalog:*",))

    async def _list(self, domain: str, repository: str, path: str, field: str, scopes: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        seen: set[str] = set()
        what = f"repository {repository}" if repository else "list of repositories"
        while path and path not in seen:
            seen.add(path)
            call = Call(method="GET", domain=domain, repository=repository, path=path, what=what, scopes=scopes)
            _, headers, data = await self._transport.fetch(call, _LIST_LIMIT)
            answer = parse_json(data, what=f"{field} of {domain}", limit=_LIST_LIMIT)
            names = answer.get(field) if isinstance(answer, dict) else None
            if not isinstance(names, list | None) or not all(isinstance(name, str) for name in names or ()):
                raise DataLoss(f"{domain} sent a list of {field} that cannot be read")
            found += names or ()
            path = next_page(headers)
        return found

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
