"""A full disk, in whichever words it comes: the one fault of a machine that every part meets and none can mend."""

import errno
import sqlite3

from kestrel.base.errors import KestrelError, ResourceExhausted


def refusal(error: BaseException) -> KestrelError | None:
    """Return what to say when a full disk is behind an error, None when it is not."""
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        # SQLite ends the transaction by itself then, so what is raised in the end is that a ROLLBACK had none to end.
        if full or (isinstance(cause, sqlite3.OperationalError) and "full" in str(cause)):
            return ResourceExhausted(
                f"no space left on the disk: {cause}",
                hint="see `kestrel df` for what takes it, and `kestrel prune` to free what nothing uses",
            )
        cause = cause.__context__
    return None
