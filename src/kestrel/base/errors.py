"""One tree of errors for the whole product.

Each kind says what went wrong in terms a caller can act on; each door maps kinds to its own wire codes in one
table. A message is a sentence fragment: lower case, no final period, the thing named; `hint` is the remedy.

    KestrelError
    ├── InvalidArgument      the request itself is wrong; repeating it cannot help
    ├── NotFound             the named thing does not exist
    ├── AlreadyExists        the name is taken
    ├── Conflict             the thing changed, or is in use, since the caller looked
    ├── FailedPrecondition   the thing is not in a state in which this can be done
    ├── PermissionDenied     known, but not allowed
    ├── Unauthenticated      not known
    ├── ResourceExhausted    a limit, a quota or the disk is used up
    ├── Unavailable          a peer or a part cannot be reached now; a retry may help
    ├── TimedOut             it took longer than was allowed
    ├── DataLoss             stored or received bytes are not what they should be
    ├── Unimplemented        not built (yet), said clearly
    └── Internal             a bug of ours
"""

TYPE_CHECKING = False  # typing and collections.abc cost the command line 4 ms; only checkers need them here
if TYPE_CHECKING:
    from collections.abc import Iterable


class KestrelError(Exception):
    """Base of every error this package raises on purpose.

    `context` holds the named things the message speaks of, so that a door can put them into its own fields.
    """

    kind = "internal"

    def __init__(self, message: str, *, hint: str | None = None, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return self.message


class InvalidArgument(KestrelError):  # noqa: N818 - kinds are nouns; the tree's root says Error
    """The request itself is wrong; repeating it cannot help."""

    kind = "invalid-argument"


class NotFound(KestrelError):  # noqa: N818
    """The named thing does not exist."""

    kind = "not-found"


class AlreadyExists(KestrelError):  # noqa: N818
    """The name is taken."""

    kind = "already-exists"


class Conflict(KestrelError):  # noqa: N818
    """The thing changed, or is in use, since the caller looked."""

    kind = "conflict"


class FailedPrecondition(KestrelError):  # noqa: N818
    """The thing is not in a state in which this can be done."""

    kind = "failed-precondition"


class PermissionDenied(KestrelError):  # noqa: N818
    """The caller is known, but not allowed."""

    kind = "permission-denied"


class Unauthenticated(KestrelError):  # noqa: N818
    """The caller is not known."""

    kind = "unauthenticated"


class ResourceExhausted(KestrelError):  # noqa: N818
    """A limit, a quota or the disk is used up."""

    kind = "resource-exhausted"


class Unavailable(KestrelError):  # noqa: N818
    """A peer or a part cannot be reached now; a retry may help."""

    kind = "unavailable"


class TimedOut(KestrelError):  # noqa: N818
    """It took longer than was allowed."""

    kind = "timed-out"


class DataLoss(KestrelError):  # noqa: N818
    """Stored or received bytes are not what they should be."""

    kind = "data-loss"


class Unimplemented(KestrelError):  # noqa: N818
    """Not built; the message says what to use instead."""

    kind = "unimplemented"


class Internal(KestrelError):  # noqa: N818
    """A bug of ours."""

    kind = "internal"


KINDS: dict[str, type[KestrelError]] = {
    cls.kind: cls
    for cls in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        Conflict,
        FailedPrecondition,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        Unavailable,
        TimedOut,
        DataLoss,
        Unimplemented,
        Internal,
    )
}
"""Every kind by its wire word: what one Kestrel process says to another."""


def nearest(word: str, known: "Iterable[str]") -> str | None:
    """Return the known word most like `word`, or None when none is close enough to suggest."""
    import difflib  # only an error path pays for it

    found = difflib.get_close_matches(word.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    if not found:
        return None
    return next(k for k in known if k.lower() == found[0])
