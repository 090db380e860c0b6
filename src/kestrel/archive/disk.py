"""What the disk answers, as errors a person can act on.

Blobs, layers and snapshots all write much and all meet the same refusals; the sentence is made in one place.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kestrel.base.errors import DataLoss, FailedPrecondition, PermissionDenied, ResourceExhausted


@contextmanager
def disk_errors(place: "str | Path") -> Iterator[None]:
    """Turn what the filesystem that holds `place` refuses into a KestrelError; other OSErrors pass.

    ENOSPC and EDQUOT become ResourceExhausted, EROFS FailedPrecondition, EIO DataLoss, EPERM PermissionDenied.
    """
    try:
        yield
    except OSError as error:
        refusal = _refusal(error, place)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: OSError, place: "str | Path") -> Exception | None:
    if error.errno == errno.ENOSPC:
        return ResourceExhausted(
            f"no space left on the disk that holds {place}",
            hint="see `kestrel df` for what takes it, and `kestrel prune` to free what nothing uses",
            path=str(place),
        )
    if error.errno == errno.EDQUOT:
        return ResourceExhausted(f"the disk quota for {place} is used up", hint="raise it, or free some space")
    if error.errno == errno.EROFS:
        return FailedPrecondition(f"the filesystem that holds {place} is read-only")
    if error.errno == errno.EIO:
        return DataLoss(f"the disk that holds {place} failed: {error.strerror}", hint="see the kernel log")
    if error.errno == errno.EPERM:
        return PermissionDenied(
            f"the kernel did not allow an operation under {place}: {error.strerror}",
            hint="device nodes, owners and file capabilities need root",
        )
    return None
