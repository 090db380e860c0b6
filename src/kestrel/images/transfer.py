"""Images as one file: `save` and `load`.

What is saved is an OCI image layout (image-spec image-layout.md) that is a docker archive too, as docker itself
writes since version 25: `index.json` for those who read layouts, `manifest.json` for those who read archives, both
naming the same files under `blobs/`. What is loaded may be either, or an archive of an older docker, whose layers are
plain tars under directories and sometimes links to each other.

Loading reads the file once, front to back, because it may be a pipe, and the documents that explain the rest may come
last: every file goes into the content store as it comes, under a lease, and what turns out to be needed by nothing is
garbage afterwards.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import msgspec

from kestrel.archive.compression import sniff
from kestrel.archive.entries import Entry, Kind, Source, TarReader
from kestrel.archive.writer import Sink, TarWriter
from kestrel.base.errors import DataLoss, InvalidArgument, KestrelError
from kestrel.content import Store
from kestrel.images.model import Image
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import REF_NAME, Index, Manifest
from kestrel.oci.platform import Platform
from kestrel.oci.records import parse_json
from kestrel.oci.reference import Reference

_DOCUMENT_LIMIT: Final = 8 * 1024 * 1024
_FILES_LIMIT: Final = 100_000
_NESTING: Final = 4
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_NAME: Final = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image found in a file; its layers are in the content store."""

    manifest: bytes
    config: bytes
    names: tuple[Reference, ...]


Pack = Callable[[bytes, str], tuple[Descriptor, bytes]]
"""Turns a manifest and its media type into that of the same image with other forms of its layers."""


def save(
    content: Store,
    images: Sequence[Image],
    sink: Sink,
    pack: Pack | None = None,
    open_blob: Callable[[Digest], BinaryIO] | None = None,
) -> None:
    """Write images and their names as one tar; the same images give the same bytes.

    `open_blob` opens what a packed manifest names, too.
    """
    open_blob = open_blob or content.open
    tar = TarWriter(sink)
    _file(tar, "oci-layout", _LAYOUT)
    written: set[Digest] = set()
    entries: list[Descriptor] = []
    archive: list[dict[str, Any]] = []
    for image in images:
        data = content.read(image.digest)
        own = Descriptor(media_type=image.media_type, digest=image.digest, size=len(data))
        if pack is not None:
            own, data = pack(data, image.media_type)
        manifest = Manifest.decode(data, image.media_type)
        if own.digest not in written:
            written.add(own.digest)
            tar.add(Entry(name=_path(own.digest), mode=0o444, size=own.size), data)
        for blob in manifest.references():
            if blob.digest not in written:
                written.add(blob.digest)
                with open_blob(blob.digest) as file:
                    tar.add(Entry(name=_path(blob.digest), mode=0o444, size=blob.size), file)
        references = [Reference.parse(name) for name in image.names]
        entries += [_named(own, image.config.platform, name) for name in references] or [own]
        archive.append(
            {
                "Config": _path(manifest.config.digest),
                "RepoTags": [name.familiar() for name in references],
                "Layers": [_path(layer.digest) for layer in manifest.layers],
            }
        )
    _file(tar, "index.json", Index.of(entries).encode())
    _file(tar, "manifest.json", msgspec.json.encode(archive))
    tar.close()


def load(content: Store, source: Source) -> list[Loaded]:
    """Read images out of a tar. Hold a lease until they are recorded. Raises InvalidArgument when there is none."""
    files = _Files(content, source)
    names = _archive_names(files)
    if files.has("index.json"):
        return _load_layout(files, names)
    if files.has("manifest.json"):
        return _load_archive(files)
    raise InvalidArgument(
        "the file holds no image", hint="it should be what `docker save` or `kestrel save` writes, or an OCI layout"
    )


class _Files:
    """The members of the archive, each stored as a blob."""

    def __init__(self, content: Store, source: Source) -> None:
        self.content = content
        self._files: dict[str, tuple[Digest, int]] = {}
        self._links: dict[str, str] = {}
        tar = TarReader(source)
        for entry in tar:
            if len(self._files) + len(self._links) >= _FILES_LIMIT:
                raise InvalidArgument(f"the file has more than {_FILES_LIMIT} members; an image has a few dozen")
            if entry.kind is Kind.FILE and entry.sparse is None:
                with content.writer() as writer:
                    for piece in tar.data():
                        writer.write(piece)
                    self._files[entry.name] = (writer.commit(), writer.size)
            elif entry.kind is Kind.HARDLINK:
                self._links[entry.name] = entry.link
            elif entry.kind is Kind.SYMLINK:
                self._links[entry.name] = _joined(entry.name, entry.link)

    def has(self, name: str) -> bool:
        return name in self._files

    def find(self, name: str) -> tuple[Digest, int]:
        """Return digest and size of a member, through links."""
        for _ in range(_NESTING):
            if name in self._files:
                return self._files[name]
            name = self._links.get(name, name)
        raise InvalidArgument(f"the file names {name!r} but does not hold it")

    def document(self, name: str) -> bytes:
        return self.content.read(self.find(name)[0], limit=_DOCUMENT_LIMIT)

    def blob(self, blob: Descriptor) -> bytes:
        """Return a document of a layout, checked against its descriptor."""
        self.check(blob)
        return self.content.read(blob.digest, limit=_DOCUMENT_LIMIT)

    def check(self, blob: Descriptor) -> None:
        digest, size = self.find(_path(blob.digest))
        if blob.digest.algorithm == digest.algorithm and digest != blob.digest:
            raise DataLoss(f"{_path(blob.digest)} in the file has the digest {digest}")
        if size != blob.size:
            raise DataLoss(f"{_path(blob.digest)} in the file has {size} bytes, announced were {blob.size}")


def _load_layout(files: _Files, tags: dict[Digest, tuple[Reference, ...]]) -> list[Loaded]:
    index = Index.decode(files.document("index.json"))
    found: dict[Digest, Loaded] = {}
    for entry in index.manifests:
        data, manifest = _image_of(files, entry)
        for layer in manifest.layers:
            files.check(layer)
        digest = Digest.of(data)
        before = found[digest].names if digest in found else ()
        names = {*before, *_annotated(entry), *tags.get(manifest.config.digest, ())}
        found[digest] = Loaded(data, files.blob(manifest.config), tuple(sorted(names, key=str)))
    return list(found.values())


def _image_of(files: _Files, entry: Descriptor) -> tuple[bytes, Manifest]:
    for _ in range(_NESTING):
        data = files.blob(entry)
        if not media_types.is_index(entry.media_type):
            return data, Manifest.decode(data, entry.media_type)
        entry = Index.decode(data, entry.media_type).select(Platform.host())
    raise InvalidArgument(f"the file has an index of indexes deeper than {_NESTING}")


def _load_archive(files: _Files) -> list[Loaded]:
    found = []
    for entry in _archive_entries(files):
        config = files.document(entry["Config"])
        layers = [_layer(files, name) for name in entry["Layers"]]
        manifest = Manifest.of(Descriptor.of(media_types.OCI_CONFIG, config), layers)
        found.append(Loaded(manifest.encode(), config, _references(entry["RepoTags"])))
    return found


def _layer(files: _Files, name: str) -> Descriptor:
    digest, size = files.find(name)
    with files.content.open(digest) as file:
        compression = sniff(file.read(6))
    if compression not in ("", "gzip", "zstd"):
        raise InvalidArgument(f"the layer {name!r} is compressed with {compression}")
    return Descriptor(media_type=media_types.layer_type(compression), digest=digest, size=size)


def _archive_entries(files: _Files) -> list[dict[str, Any]]:
    listed = parse_json(files.document("manifest.json"), what="manifest.json", limit=_DOCUMENT_LIMIT)
    if not isinstance(listed, list):
        raise InvalidArgument("manifest.json is not a list")
    entries = []
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
            raise InvalidArgument("manifest.json has an entry without Config")
        made = {"Config": entry["Config"], "Layers": entry.get("Layers") or [], "RepoTags": entry.get("RepoTags") or []}
        for key in ("Layers", "RepoTags"):
            if not isinstance(made[key], list) or not all(isinstance(each, str) for each in made[key]):
                raise InvalidArgument(f"manifest.json has {key} that are no list of names")
        entries.append(made)
    return entries


def _archive_names(files: _Files) -> dict[Digest, tuple[Reference, ...]]:
    """Return the names that manifest.json gives, by the digest of the configuration."""
    if not files.has("manifest.json"):
        return {}
    return {files.find(e["Config"])[0]: _references(e["RepoTags"]) for e in _archive_entries(files)}


def _annotated(entry: Descriptor) -> tuple[Reference, ...]:
    full = entry.annotations.get(_NAME)
    return _references([full] if full else [entry.annotations[REF_NAME]] if REF_NAME in entry.annotations else [])


def _references(names: Iterable[str]) -> tuple[Reference, ...]:
    """Read names; one that is no name (a layout's reference may be any text) is passed over."""
    found = []
    for name in names:
        try:
            found.append(Reference.parse(name))
        except KestrelError:
            continue
    return tuple(found)


def _named(blob: Descriptor, platform: Platform, name: Reference) -> Descriptor:
    return Descriptor(
        media_type=blob.media_type,
        digest=blob.digest,
        size=blob.size,
        platform=platform,
        annotations={_NAME: str(name), REF_NAME: name.tag},
    )


def _joined(name: str, target: str) -> str:
    """Return what a symbolic link in the archive points to, as a member's name."""
    parts = [] if target.startswith("/") else name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _file(tar: TarWriter, name: str, data: bytes) -> None:
    tar.add(Entry(name=name, mode=0o444, size=len(data)), data)
