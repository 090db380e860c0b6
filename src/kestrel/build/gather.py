"""What a COPY would copy, as a digest: every name, kind, mode, owner and content that reaches the layer, nothing else.

Modification times do not count: the layer has clamped ones. What `--chmod` and `--chown` replace does not count
either. The mode and owner of a directory that is itself the source do not, because only its contents are copied.

Selections in a stage or an image are remembered by the layers they were made in, so that an unchanged build mounts
nothing. Those in the context are looked at each time, reading only files that changed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from kestrel.build.cache import Cache
from kestrel.build.digests import FileDigests
from kestrel.build.explain import FIELD, RECORD
from kestrel.build.graph import Inline, Selection
from kestrel.build.ownership import Mode
from kestrel.build.tree import FILE, LINK, Entry, Source, Tree

Opener = Callable[[], Tree]


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

    def digest(self, mode: Mode | None, *, owned: bool) -> str:
        """Return the digest; `owned` when another owner is going to replace the files' own."""
        if isinstance(self.selection.origin, Inline):
            return hashlib.sha256(json.dumps(self.selection.origin.files).encode()).hexdigest()
        memory = self._memory_key(mode, owned) if self._place else ""
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

    def _memory_key(self, mode: Mode | None, owned: bool) -> str:
        selection = self.selection
        parts = [self._place, selection.patterns, selection.exclude, selection.parents]
        settings = [mode.fixed if mode else None, mode.text if mode else None, owned]
        return hashlib.sha256(json.dumps([1, *parts, *settings]).encode()).hexdigest()

    def _lines(self, mode: Mode | None, owned: bool) -> Iterator[bytes]:
        tree, sources = self.sources()
        modeless = mode is not None and mode.fixed is not None
        for number, source in enumerate(sources):
            digests = self._digests.of(tree, source)
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
