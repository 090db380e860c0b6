"""What refers to a manifest: signatures, SBOMs, attestations (distribution-spec, "Listing Referrers").

A registry without the API has them in an index under a tag made of the digest, which clients keep up to date
("Referrers Tag Schema"); both are read, as registries that got the API later may have some in either.
"""

from dataclasses import replace

from kestrel.base.errors import NotFound
from kestrel.distribution.resolve import manifest, pull_scope
from kestrel.distribution.transport import Call, Transport, next_page
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import LIMIT, Index
from kestrel.oci.reference import Reference


async def referrers(transport: Transport, ref: Reference, subject: Digest) -> list[Descriptor]:
    """Return the descriptors of all manifests in the repository of `ref` whose subject it is, each once."""
    found = {
        each.digest: each for each in [*await _listed(transport, ref, subject), *await _tagged(transport, ref, subject)]
    }
    return list(found.values())


async def _listed(transport: Transport, ref: Reference, subject: Digest) -> list[Descriptor]:
    found: list[Descriptor] = []
    seen: set[str] = set()
    path = f"{ref.path}/referrers/{subject}"
    while path and path not in seen:
        seen.add(path)
        call = Call(
            method="GET",
            domain=ref.domain,
            repository=ref.path,
            path=path,
            what=f"referrers of {subject}",
            scopes=pull_scope(ref.path),
            headers={"Accept": media_types.OCI_INDEX},
        )
        try:
            _, headers, data = await transport.fetch(call, LIMIT)
        except NotFound:
            break
        found += Index.decode(data, media_types.OCI_INDEX).manifests
        path = next_page(headers)
    return found


async def _tagged(transport: Transport, ref: Reference, subject: Digest) -> list[Descriptor]:
    tag = f"{subject.algorithm[:32]}-{subject.hex[:64]}"
    try:
        descriptor, data = await manifest(transport, replace(ref, tag=tag, digest=None))
    except NotFound:
        return []
    return list(Index.decode(data).manifests) if media_types.is_index(descriptor.media_type) else []
