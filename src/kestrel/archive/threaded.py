"""A source and a sink that work in a thread of their own: reading, inflating, hashing and writing beside the caller."""

import queue
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from kestrel.archive.compression import PIECE
from kestrel.archive.entries import Source
from kestrel.archive.writer import Sink


class ReadAhead:
    """Reads `source` in a thread, a few pieces ahead of the one who unpacks. Use as a context manager."""

    def __init__(self, source: Source, *, ahead: int = 8) -> None:
        self._source = source
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._rest = b""
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._thread.start()

    def read(self, size: int = PIECE, /) -> bytes:
        """Return some bytes, none at the end; raises what reading the source raised."""
        if not self._rest and not self._ended:
            piece = self._pieces.get()
            if isinstance(piece, BaseException):
                self._ended = True
                raise piece
            self._rest, self._ended = piece, not piece
        taken, self._rest = (self._rest, b"") if len(self._rest) <= size else (self._rest[:size], self._rest[size:])
        return taken

    def close(self) -> None:
        """Stop reading and wait for the thread, so that nobody touches the source any more."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._pieces.get(timeout=0.05)
            except queue.Empty:
                pass
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                piece = self._source.read(PIECE)
                self._put(piece)
                if not piece:
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the reader, whose call this is
            self._put(error)

    def _put(self, piece: "bytes | BaseException") -> None:
        while not self._stopped.is_set():
            try:
                self._pieces.put(piece, timeout=0.2)
            except queue.Full:
                continue
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WriteBehind:
    """Writes to a sink in a thread, a few pieces behind the one who makes them. Use as a context manager.

    `write` keeps what it is given, and raises what an earlier one met. At the end all is written, or an error raised.
    """

    def __init__(self, sink: Sink, *, behind: int = 8) -> None:
        self._sink = sink
        self._behind = behind
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._written: deque[Future[object]] = deque()

    def write(self, data: "bytes | bytearray | memoryview", /) -> None:
        """Hand bytes on; waits while too many are on their way."""
        if len(self._written) >= self._behind:
            self._written.popleft().result()
        self._written.append(self._thread.submit(self._sink.write, data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: "type[BaseException] | None", *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for each in self._written:
                each.result()
