"""Leases: what is being assembled is not garbage yet.

A pull writes blobs first and the image that names them last. In between nothing refers to the blobs, so whoever
assembles holds a lease, and every blob that is committed or looked at while a lease is open belongs to it until
it closes. Leases live in memory: the work of a daemon that died is garbage, or is resumed under a new lease.
"""

import threading
from collections.abc import Iterable
from typing import Self

from kestrel.oci.digest import Digest


class Lease:
    """Protects blobs until it is closed; a context manager."""

    def __init__(self, leases: "Leases") -> None:
        self._leases = leases
        self.digests: set[Digest] = set()

    def protect(self, digests: Iterable[Digest]) -> None:
        """Keep these too, whether they exist yet or not."""
        with self._leases.lock:
            self.digests.update(digests)

    def close(self) -> None:
        """Let go; a second time does nothing."""
        self._leases.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Leases:
    """All open leases. `lock` also orders `has` against the sweep, so a blob cannot vanish between look and use."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._open: list[Lease] = []

    def open(self) -> Lease:
        """Return a new open lease."""
        lease = Lease(self)
        with self.lock:
            self._open.append(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Close one."""
        with self.lock:
            if lease in self._open:
                self._open.remove(lease)

    def touch(self, digest: Digest) -> None:
        """Note that somebody saw or made this blob: every open lease now holds it."""
        with self.lock:
            for lease in self._open:
                lease.digests.add(digest)

    def held(self) -> set[Digest]:
        """Return what is protected at this moment."""
        with self.lock:
            return set().union(*(lease.digests for lease in self._open))
