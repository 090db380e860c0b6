"""Conditional requests (RFC 9110 section 13): a tag is moved only if it is still what the client saw.

The ETag of a manifest or blob is its quoted digest. `If-Match: "<digest>"` on a PUT moves a tag that stands for that
digest, `If-None-Match: *` sets one that does not exist: compare and swap, and create.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kestrel.base.errors import FailedPrecondition
from kestrel.oci.digest import Digest


class Mismatch(FailedPrecondition):
    """The tag is not what the client's condition says."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a client demands of a tag before it is changed; empty demands nothing."""

    match: str = ""
    none_match: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Condition":
        """Read the headers of a request."""
        return cls(headers.get("If-Match", ""), headers.get("If-None-Match", ""))

    def demand(self, tag: str, current: "Digest | None") -> None:
        """Raise Mismatch unless a tag that stands for `current` (None: for nothing) may be changed."""
        etag = f'"{current}"' if current else ""
        if self.match and not (etag and matches(self.match, etag)):
            now = f"it stands for {current}" if current else "it does not exist"
            raise Mismatch(f"the tag {tag} is not what If-Match says: {now}", hint="look again, and decide anew")
        if self.none_match and etag and matches(self.none_match, etag):
            raise Mismatch(f"the tag {tag} exists already: it stands for {current}", hint="look again, and decide anew")


ANY = Condition()
"""Demands nothing."""


def matches(condition: str, etag: str) -> bool:
    """Whether an If-None-Match or If-Match condition names this ETag."""
    if not condition:
        return False
    return condition.strip() == "*" or any(part.strip().removeprefix("W/") == etag for part in condition.split(","))
