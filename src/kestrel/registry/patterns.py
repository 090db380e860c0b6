"""Names by pattern: `*` is any run of characters within one part of a path, `**` any at all, everything else itself."""

import re
from functools import lru_cache

from kestrel.base.errors import InvalidArgument

_ALLOWED = re.compile(r"[A-Za-z0-9._/*-]{1,255}")
_PIECES = re.compile(r"\*\*|\*|[^*]+")


def check(pattern: str) -> str:
    """Return the pattern; raises InvalidArgument for what could match nothing."""
    if not _ALLOWED.fullmatch(pattern):
        raise InvalidArgument(
            f"invalid pattern {pattern[:300]!r}", hint="use a name, `*` for any part of one, `**` across slashes"
        )
    return pattern


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern covers a name."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> "re.Pattern[str]":
    words = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(words.get(piece) or re.escape(piece) for piece in _PIECES.findall(pattern)))
