"""A container's output as CRI log lines, written by the shim (kubernetes CRI, "Container log format").

    2026-01-02T15:04:05.123456789Z stdout F a whole line
    2026-01-02T15:04:05.123456789Z stderr P a part of one, the rest follows

A line is split after 16 KiB; what is left without a newline at the end is written as P, so that the bytes read back
are the bytes that were written. The file grows to `max_size` and is then renamed to PATH.1 (older ones move up, the
oldest goes). `reopen` follows a rename by somebody else. A symbolic link in its place is never followed
(CVE-2026-53488 and its family).

A log that cannot be written (full disk) must not stop the container: lines are dropped, and counted; the count is
written as a line of its own once writing works again.
"""

from __future__ import annotations

import os
import time

from kestrel.runtime.messages import LogFile, from_json, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kestrel.runtime.messages import JSON

SPLIT = 16 * 1024  # bytes of content in one log line
STREAMS = {"stdout": b"stdout", "stderr": b"stderr"}


class LogWriter:
    """Takes bytes of two streams and appends lines to a file. Never raises from `write`."""

    def __init__(self, where: LogFile, fd: int = -1) -> None:
        """Open the file, unless it is open as `fd`; raises OSError when that is not possible."""
        self._where = where
        self._rest = {"stdout": bytearray(), "stderr": bytearray()}
        self._second = -1
        self._prefix = ""
        self._dropped = 0
        self._fd = fd
        self._size = os.fstat(fd).st_size if fd >= 0 else 0
        if fd < 0:
            self.reopen()

    def write_down(self) -> JSON:
        """Return what another process, with our descriptors, needs to go on with `read_up`."""
        rest = {stream: data.decode("latin-1") for stream, data in self._rest.items()}
        return {"where": to_json(self._where), "fd": self._fd, "dropped": self._dropped, "rest": rest}

    @classmethod
    def read_up(cls, given: JSON) -> LogWriter:
        """Return the writer that was written down."""
        log = cls(from_json(LogFile, given["where"]), given["fd"])
        log._dropped = given["dropped"]
        for stream, text in given["rest"].items():
            log._rest[stream] += text.encode("latin-1")
        return log

    def write(self, stream: str, data: bytes) -> None:
        """Append what is complete; keep the beginning of a line until its end comes."""
        now = self._now()
        head = b"%s %s " % (now, STREAMS[stream])
        rest = self._rest[stream]
        rest += data
        lines = []
        start = 0
        while True:
            end = rest.find(b"\n", start, start + SPLIT + 1)
            if end >= 0:
                lines.append(b"%sF %s\n" % (head, rest[start:end]))
                start = end + 1
            elif len(rest) - start >= SPLIT:
                lines.append(b"%sP %s\n" % (head, rest[start : start + SPLIT]))
                start += SPLIT
            else:
                break
        if start:
            del rest[:start]
        self._append_all(lines)

    def finish(self) -> None:
        """Write what has no newline, and close."""
        for stream, rest in self._rest.items():
            if rest:
                self._append(b"%s %s P %s\n" % (self._now(), STREAMS[stream], rest))
                rest.clear()
        self._close()

    def reopen(self) -> None:
        """Open the path anew, after it was renamed. Raises OSError; the old file then stays in use."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._where.path, flags, 0o640)
        self._close()
        self._fd = fd
        self._size = os.fstat(fd).st_size

    def _now(self) -> bytes:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second:
            self._second = seconds
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f"{self._prefix}.{nanoseconds:09d}Z".encode()

    def _append_all(self, lines: list[bytes]) -> None:
        """Append lines, together as far as they fit into the file that is open."""
        batch: list[bytes] = []
        size = 0
        for line in lines:
            if self._where.max_size and batch and self._size + size + len(line) > self._where.max_size:
                self._append(b"".join(batch))
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            self._append(b"".join(batch))

    def _append(self, data: bytes) -> None:
        if self._where.max_size and self._size and self._size + len(data) > self._where.max_size:
            self._rotate()
        if self._dropped:
            data = b"%s stderr F [%d bytes of output were lost: the log could not be written]\n%s" % (
                self._now(),
                self._dropped,
                data,
            )
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
            self._dropped = 0
        except OSError:
            self._dropped += len(view)

    def _rotate(self) -> None:
        path, keep = self._where.path, self._where.max_files
        try:
            if keep <= 1:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            for number in range(keep - 1, 0, -1):
                older = f"{path}.{number - 1}" if number > 1 else path
                if os.path.lexists(older):
                    os.replace(older, f"{path}.{number}")
            self.reopen()
        except OSError:
            pass  # go on in the file that is open; the next line tries again

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
