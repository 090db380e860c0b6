"""From a name to the bytes of a manifest, checked.

A tag is asked for with HEAD first: that is free of Docker Hub's limit, which counts manifest GETs only, and when we
have the digest already nothing more is needed. The bytes are then fetched by digest, so that a tag that moves in
between cannot give us half of each. Registries that answer HEAD with 404, 405 or without a digest get a GET.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from kestrel.base.errors import DataLoss, InvalidArgument, KestrelError, NotFound, Unimplemented
from kestrel.distribution.transport import Call, Transport
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import LIMIT, Index, decode
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference

_ACCEPT = ", ".join([*media_types.ACCEPT, "*/*;q=0.1"])
_NESTING = 4


async def resolve(transport: Transport, ref: Reference, platform: "Platform | None" = None) -> Descriptor:
    """Return the descriptor of what `ref` names; with `platform`, of the image in it for that platform.

    Raises NotFound when there is no such image, or none for the platform.
    """
    found = await _head(transport, ref)
    if found is None:
        found, _ = await manifest(transport, ref)
    if platform is None:
        return found
    for _ in range(_NESTING):
        if not media_types.is_index(found.media_type):
            return found
        found, data = await manifest(transport, ref, found)
        found = Index.decode(data, found.media_type).select(platform)
    raise InvalidArgument(f"{ref.familiar()} is an index of indexes deeper than {_NESTING}")


async def manifest(
    transport: Transport, ref: Reference, descriptor: "Descriptor | None" = None
) -> tuple[Descriptor, bytes]:
    """Return descriptor and exact bytes of the manifest `ref` names, or of `descriptor` in the same repository.

    Raises DataLoss when the bytes are not what the digest promises, InvalidArgument when they are no manifest.
    """
    expected = descriptor.digest if descriptor else ref.digest
    if expected is None and (found := await _head(transport, ref)):
        expected = found.digest
    call = _call("GET", ref, str(expected) if expected else ref.tag)
    _, headers, data = await transport.fetch(call, LIMIT)
    actual = Digest.of(data, expected.algorithm if expected else "sha256")
    _check(ref, data, actual, expected, descriptor, headers)
    kind = _media_type(headers, data, descriptor, ref)
    decode(data, kind)  # refuses what is no manifest, or claims to be two things at once
    if descriptor:
        return descriptor, data
    return Descriptor(media_type=kind, digest=actual, size=len(data)), data


async def _head(transport: Transport, ref: Reference) -> "Descriptor | None":
    """Return what HEAD says, or None when it does not say enough."""
    try:
        async with transport.send(_call("HEAD", ref, ref.version)) as answer:
            headers = answer.headers
    except (NotFound, Unimplemented, InvalidArgument):
        return None  # GET will tell, with a body that says why
    kind = media_types.essence(headers.get("Content-Type", ""))
    digest, length = headers.get("Docker-Content-Digest", ""), headers.get("Content-Length", "")
    known = media_types.is_index(kind) or media_types.is_manifest(kind)
    if not known or not length.isdigit():
        return None
    try:
        parsed = Digest.parse(digest)
    except KestrelError:
        return None
    if ref.digest and parsed != ref.digest:
        raise DataLoss(f"{ref.domain} answered with {parsed} when asked for {ref.digest}")
    return Descriptor(media_type=kind, digest=parsed, size=int(length))


def _call(method: str, ref: Reference, version: str) -> Call:
    return Call(
        method=method,
        domain=ref.domain,
        repository=ref.path,
        path=f"{ref.path}/manifests/{version}",
        what=f"image {_named(ref, version)}",
        scopes=pull_scope(ref.path),
        headers={"Accept": _ACCEPT},
    )


def _named(ref: Reference, version: str) -> str:
    if ":" in version:
        return replace(ref, tag="", digest=Digest.parse(version)).familiar()
    return replace(ref, digest=None).familiar()


def pull_scope(path: str) -> Collection[str]:
    """Return the scope a token needs to read a repository (distribution, spec/auth/scope.md)."""
    return (f"repository:{path}:pull",)


def _check(
    ref: Reference,
    data: bytes,
    actual: Digest,
    expected: "Digest | None",
    descriptor: "Descriptor | None",
    headers: Mapping[str, str],
) -> None:
    if expected and actual != expected:
        raise DataLoss(
            f"{ref.domain} sent a manifest with digest {actual} when asked for {expected}",
            hint="the registry, or something on the way to it, changes what it serves",
        )
    if descriptor and len(data) != descriptor.size:
        raise DataLoss(f"{ref.domain} sent {len(data)} bytes for {actual}, announced were {descriptor.size}")
    said = headers.get("Docker-Content-Digest", "")
    if not expected and said.startswith("sha256:") and said != actual:
        raise DataLoss(f"{ref.domain} sent a manifest with digest {actual} and called it {said[:80]}")


def _media_type(headers: Mapping[str, str], data: bytes, descriptor: "Descriptor | None", ref: Reference) -> str:
    """Return what the manifest is; file servers say `text/plain`, then the document has to know."""
    said = media_types.essence(headers.get("Content-Type", ""))
    if not said or said in ("application/json", "text/plain", "application/octet-stream"):
        said = ""
    if descriptor:
        if said and said != descriptor.media_type:
            raise DataLoss(f"{ref.domain} sent {descriptor.digest} as {said}, announced was {descriptor.media_type}")
        return descriptor.media_type
    if said:
        return said
    found = decode(data)
    return found.media_type or (media_types.OCI_INDEX if isinstance(found, Index) else media_types.OCI_MANIFEST)
