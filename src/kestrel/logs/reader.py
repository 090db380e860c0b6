"""Reads a container's log: the last lines without reading the rest, and then, on request, what is still to come.

The shim writes `<path>` and rotates it to `<path>.1`, `<path>.2` and so on, the highest number the oldest. A reader
sees them as one text, oldest first. A follower holds the file it reads open, so a rotation under its feet loses
nothing: it reads the renamed file to its end, finds by inode which file came after it, and goes on there.

Nothing here knows containers: who calls `read` passes `ended`, which says when no more can come, and wakes the reader
by ringing the `Changes` it shares (or by letting the file change).
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kestrel.base.clock import rfc3339_nano
from kestrel.base.errors import NotFound
from kestrel.logs.changes import Changes, Listener
from kestrel.logs.cri_format import Entry, parse

_BLOCK = 65536

SAFETY = 1.0
"""Seconds after which a follower asks again whether the writer has ended, even if nobody rang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Which part of a log is wanted.

    `tail` counts lines from the end (None: all). `since` and `until` are nanoseconds since the epoch, inclusive and
    exclusive. `stream` is `stdout`, `stderr` or empty for both. `limit` is the most bytes `render` gives out.
    """

    tail: int | None = None
    since: int = 0
    until: int = 0
    stream: str = ""
    follow: bool = False
    timestamps: bool = False
    limit: int | None = None


def never() -> bool:
    """Say that the writer has not ended."""
    return False


async def read(
    path: Path, options: LogOptions, *, ended: Callable[[], bool] = never, changes: Changes | None = None
) -> AsyncIterator[Entry]:
    """Yield whole lines, oldest first: partial entries joined, the moment that of their first part.

    With `follow` it goes on until `ended()` is true and everything written has been given out. `ended` is asked again
    whenever the directory changes or `changes.wake` rings for it, and once a second for safety.
    Raises NotFound when there is no log.
    """
    joiner = _Joiner()
    async for entry in _entries(path, options, ended, changes):
        whole = joiner.add(entry)
        if whole is None:
            continue
        if options.until and whole.moment >= options.until:
            return
        yield whole
    for rest in joiner.rest():
        yield rest


async def render(
    path: Path, options: LogOptions, *, ended: Callable[[], bool] = never, changes: Changes | None = None
) -> AsyncIterator[bytes]:
    """Yield the text as `kubectl logs` prints it: one chunk per line, stamped when asked, cut at `limit` bytes."""
    left = options.limit
    async for entry in read(path, options, ended=ended, changes=changes):
        # A line whose end was never written ends the output without a newline, as the process wrote it.
        chunk = entry.text if entry.partial else entry.text + b"\n"
        if options.timestamps:
            chunk = rfc3339_nano(entry.moment).encode() + b" " + chunk
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
        if left == 0:
            return


def files(path: Path) -> list[Path]:
    """Return the files of one log that exist, oldest first, the one being written last."""
    rotated = []
    for candidate in path.parent.glob(f"{path.name}.*"):
        suffix = candidate.name[len(path.name) + 1 :]
        if suffix.isdigit():
            rotated.append((int(suffix), candidate))
    found = [candidate for _, candidate in sorted(rotated, reverse=True)]
    return [*found, path] if path.exists() else found


async def _entries(
    path: Path, options: LogOptions, ended: Callable[[], bool], changes: Changes | None
) -> AsyncIterator[Entry]:
    opened = _open_all(path)
    try:
        if not opened:
            raise NotFound(f"no log at {path.name}", hint="the container may not have started, or its log was removed")
        for count, entry in enumerate(_stored(opened, options), 1):
            yield entry
            if count % 512 == 0:
                await asyncio.sleep(0)  # a long log must not hold up everyone else
        if not options.follow:
            return
        current = opened.pop()
        try:
            with (changes or Changes()).watch(path.parent) as listener:
                async for entry in _follow(path, current, ended, listener):
                    if _wanted(entry, options):
                        yield entry
        finally:
            current.file.close()
    finally:
        for source in opened:
            source.file.close()


@dataclass(slots=True)
class _Source:
    """An open log file and what was read of its last, still incomplete line."""

    file: BinaryIO
    rest: bytes = b""

    def entries(self) -> Iterator[Entry]:
        """Yield what has been written since the last call."""
        while block := self.file.read(_BLOCK):
            *lines, self.rest = (self.rest + block).split(b"\n")
            for line in lines:
                entry = parse(line)
                if entry is not None:
                    yield entry

    def replace(self, file: BinaryIO) -> None:
        """Go on with another file."""
        self.file.close()
        self.file = file
        self.rest = b""


def _open_all(path: Path) -> list[_Source]:
    """Open every file of the log, oldest first; a rotation meanwhile makes us look again."""
    for _ in range(5):
        opened: list[_Source] = []
        try:
            for name in files(path):
                # A comprehension would lose the files already open when a later one is gone.
                opened.append(_Source(open(name, "rb")))  # noqa: PERF401, SIM115 - see above; closed by the reader
        except FileNotFoundError:
            for source in opened:
                source.file.close()
            continue
        inodes = {os.fstat(source.file.fileno()).st_ino for source in opened}
        if len(inodes) == len(opened):
            return opened
        for source in opened:
            source.file.close()
    return []


def _stored(opened: list[_Source], options: LogOptions) -> Iterator[Entry]:
    """Yield the wanted entries that are in the files now, leaving the last file positioned at its end."""
    if options.tail is None:
        for source in opened:
            yield from (entry for entry in source.entries() if _wanted(entry, options))
        return
    found = _tail(opened, options)
    yield from found


def _tail(opened: list[_Source], options: LogOptions) -> Iterator[Entry]:
    """Yield the entries of the last `tail` whole lines, reading backwards from the end and no further than needed."""
    assert options.tail is not None
    newest = opened[-1]
    end = newest.file.seek(0, os.SEEK_END)
    kept: deque[Entry] = deque()
    lines = 0
    torn = b""
    for source in reversed(opened):
        size = end if source is newest else source.file.seek(0, os.SEEK_END)
        for number, raw in enumerate(_backwards(source.file, size)):
            if number == 0 and raw:
                if source is newest:
                    torn = raw  # not yet complete: following picks it up
                continue
            entry = parse(raw)
            if entry is None or (options.stream and entry.stream != options.stream):
                continue
            if not entry.partial and lines == options.tail:
                lines += 1
                break
            lines += not entry.partial
            if entry.moment < options.since:
                lines = options.tail + 1
                break
            kept.appendleft(entry)
        if lines > options.tail:
            break
    newest.file.seek(end)
    newest.rest = torn
    if options.tail == 0:
        return
    yield from kept


def _backwards(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the lines of a file from the last to the first; the first item is what follows the last newline."""
    rest = b""
    position = size
    while position > 0:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        lines = (file.read(step) + rest).split(b"\n")
        rest = lines[0]
        yield from reversed(lines[1:])
    yield rest


async def _follow(path: Path, source: _Source, ended: Callable[[], bool], listener: Listener) -> AsyncIterator[Entry]:
    while True:
        # Ask before reading: what was written before the end is then surely read.
        last = ended()
        for entry in source.entries():
            yield entry
        if _advance(path, source):
            continue
        if last:
            return
        try:
            # The end of a process changes no file; whoever forgot to ring for it costs the reader this long.
            await asyncio.wait_for(listener.wait(), SAFETY)
        except TimeoutError:
            pass


def _advance(path: Path, source: _Source) -> bool:
    """Move on to the file written after this one, if this one has been rotated; the old one is read out first."""
    inode = os.fstat(source.file.fileno()).st_ino
    names = files(path)
    try:
        inodes = [os.stat(name).st_ino for name in names]
    except FileNotFoundError:
        return True  # a rotation is going on: look again
    if not names or inodes[-1] == inode:
        return False
    following = names[inodes.index(inode) + 1] if inode in inodes else names[0]
    # The writer renames before it opens the new file, so whatever it wrote to the old one is there by now.
    if os.fstat(source.file.fileno()).st_size > source.file.tell():
        return True
    try:
        source.replace(open(following, "rb"))  # noqa: SIM115 - closed by the reader
    except FileNotFoundError:
        pass
    return True


def _wanted(entry: Entry, options: LogOptions) -> bool:
    if options.stream and entry.stream != options.stream:
        return False
    return entry.moment >= options.since


class _Joiner:
    """Puts the parts of a long line together again, each stream on its own."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Entry]] = {}

    def add(self, entry: Entry) -> Entry | None:
        parts = self._parts.setdefault(entry.stream, [])
        parts.append(entry)
        if entry.partial:
            return None
        del self._parts[entry.stream]
        if len(parts) == 1:
            return entry
        return Entry(parts[0].moment, entry.stream, b"".join(part.text for part in parts))

    def rest(self) -> Iterator[Entry]:
        """Yield what never got its end."""
        for stream, parts in self._parts.items():
            yield Entry(parts[0].moment, stream, b"".join(part.text for part in parts), partial=True)
