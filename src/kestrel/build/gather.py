"""What a COPY would copy, as a digest: every name, kind, mode, owner and content that reaches the layer, nothing else.

Modification times do not count: the layer has clamped ones. What `--chmod` and `--chown` replace does not count
either. The mode and owner of a directory that is itself the source do not, because only its contents are copied.

Selections in a stage or an image are remembered by the layers they were made in, so that an unchanged build mounts
nothing. Those in the context are looked at each time: when every file has the inode and the times it had, the digest
is the one it was, else only files that changed are read.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import msgspec

from kestrel.build.cache import Cache
from kestrel.build.digests import RACY_NS, FileDigests
from kestrel.build.explain import FIELD, RECORD
from kestrel.build.graph import Inline, Selection
from kestrel.build.ownership import Mode
from kestrel.build.tree import FILE, LINK, Entry, Source, Tree

Opener = Callable[[], Tree]
_SIGNATURE = msgspec.msgpack.Encoder()


class Gathering:
    """One selection, looked at when it is asked for, and kept until `close` for the copying that may follow.

    `place` is what identifies the filesystem for memory: empty for one that may change, such as the context.
    """

    def __init__(
        self, selection: Selection, opener: Opener | None, place: str, *, cache: Cache, digests: FileDigests
    ) -> None:
        self.selection = selection
        self._opener = opener
        self._place = place
        self._cache = cache
        self._digests = digests
        self._stack = ExitStack()
        self._found: tuple[Tree, list[Source]] | None = None
        self._listing: bytes | None = None
        self._digests_of: dict[int, dict[str, bytes]] = {}
        self._kept: dict[int, dict[str, bytes]] = {}
        self._holders = 1

    def hold(self) -> None:
        """Keep the tree open until one more `close`: a step that two builds share outlives either of them."""
        self._holders += 1

    def close(self) -> None:
        """Let go of the tree, when nobody else holds it."""
        self._holders -= 1
        if self._holders == 0:
            self._stack.close()
            self._found = None
            self._kept.clear()

    def sources(self) -> tuple[Tree, list[Source]]:
        """Return the tree and what is selected in it. Raises Missing or InvalidArgument."""
        if self._found is None:
            assert self._opener is not None  # inline files are not asked for sources
            tree = self._stack.enter_context(self._opener())
            select = tree.select_parents if self.selection.parents else tree.select
            found = [
                source
                for pattern in self.selection.patterns
                for source in select(pattern, exclude=self.selection.exclude)
            ]
            self._found = (tree, found)
        return self._found

    def contents(self, number: int) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
        """Return digests of the files of one source, by path, and those files' bytes that are still in memory.

        Nothing where the digest of the selection was remembered, and finding out would be to read every file.
        """
        if number not in self._digests_of and not (self._place and self._listing is None):
            self._find(number)
        return self._digests_of.get(number, {}), self._kept.get(number, {})

    def _find(self, number: int) -> Mapping[str, bytes]:
        if number not in self._digests_of:
            tree, sources = self.sources()
            self._kept[number] = {}
            self._digests_of[number] = self._digests.of(tree, sources[number], self._kept[number])
        return self._digests_of[number]

    def digest(self, mode: Mode | None, *, owned: bool) -> str:
        """Return the digest; `owned` when another owner is going to replace the files' own."""
        if isinstance(self.selection.origin, Inline):
            return hashlib.sha256(json.dumps(self.selection.origin.files).encode()).hexdigest()
        memory = self._memory_key(mode, owned, self._place or self._signature())
        known = self._cache.selection(memory) if memory else None
        if known is not None:
            return known
        listing = RECORD.join(self._lines(mode, owned))
        digest = hashlib.sha256(listing).hexdigest()
        self._listing = listing
        if memory:
            self._cache.keep_selection(memory, digest)
        return digest

    def keep_listing(self, digest: str) -> None:
        """Store the list of files behind the digest, so that a later miss can say what changed."""
        if self._listing is not None:
            self._cache.keep_listing(digest, self._listing)

    def _signature(self) -> str:
        """Return a digest of what the kernel says of the files without their being read, times and inodes included.

        Empty for files that changed just now (see `digests`), and for names that are not UTF-8.
        """
        before = time.time_ns() - RACY_NS
        _, sources = self.sources()
        if any(entry.stamps[1] >= before for source in sources for entry in source.entries):
            return ""
        try:
            return hashlib.sha256(_SIGNATURE.encode([(s.name, s.entries) for s in sources])).hexdigest()
        except UnicodeEncodeError:
            return ""

    def _memory_key(self, mode: Mode | None, owned: bool, place: str) -> str:
        if not place:
            return ""
        selection = self.selection
        parts = [place, selection.patterns, selection.exclude, selection.parents]
        settings = [mode.fixed if mode else None, mode.text if mode else None, owned]
        return hashlib.sha256(json.dumps([2, *parts, *settings]).encode()).hexdigest()

    def _lines(self, mode: Mode | None, owned: bool) -> Iterator[bytes]:
        _, sources = self.sources()
        modeless = mode is not None and mode.fixed is not None
        for number, source in enumerate(sources):
            digests = self._find(number)
            prefix = f"{number}:" if len(sources) > 1 else ""
            names: dict[tuple[int, int], str] = {}
            for entry in source.entries:
                if not entry.path and source.is_directory:
                    yield FIELD.join((f"{prefix}.".encode(), b"directory"))
                    continue
                first = names.setdefault(entry.inode, entry.path) if entry.links > 1 else ""
                content = digests[entry.path].hex() if entry.kind == FILE else entry.target or str(entry.device)
                yield _line(prefix + (entry.path or source.name), entry, content, first, modeless=modeless, owned=owned)


def _line(path: str, entry: Entry, content: str, first: str, *, modeless: bool, owned: bool) -> bytes:
    """Return one entry; no field may be empty, so that the separators stay what they are."""
    mode = "" if modeless or entry.kind == LINK else f"{entry.mode:o}"
    owner = "" if owned else f"{entry.uid}:{entry.gid}"
    xattrs = ",".join(f"{key}={value.hex()}" for key, value in entry.xattrs)
    fields = (path, f"{mode} {owner}", entry.kind, content or "-", first or "-", xattrs or "-")
    return FIELD.join(field.encode("utf-8", "surrogateescape") for field in fields)
