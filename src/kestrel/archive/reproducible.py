"""What makes two builds of the same things give the same bytes: one order, clamped times, chosen owners.

Tar records when and by whom; neither is content. SOURCE_DATE_EPOCH
(https://reproducible-builds.org/specs/source-date-epoch/) asks to clamp, not to overwrite: a file older than the
given moment keeps its time.
"""

from collections.abc import Iterable

import msgspec

from kestrel.archive.entries import Entry

SECOND = 1_000_000_000


def clamped(mtime: int, limit: int | None) -> int:
    """Return a time in nanoseconds cut to whole seconds, and no later than `limit` (nanoseconds) if there is one."""
    if limit is not None and mtime > limit:
        mtime = limit
    return mtime - mtime % SECOND


def normalized(entry: Entry, *, clamp: int | None = None, owner: tuple[int, int] | None = None) -> Entry:
    """Return the entry with its time clamped and, if given, another owner (uid, gid)."""
    uid, gid = owner or (entry.uid, entry.gid)
    return msgspec.structs.replace(entry, mtime=clamped(entry.mtime, clamp), uid=uid, gid=gid)


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries sorted so that a directory precedes what is in it, whatever order they were found in."""
    return sorted(entries, key=lambda entry: entry.name.split("/"))
