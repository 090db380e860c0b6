"""Which users of the host stand behind those of a container in a user namespace.

Each sandbox has a range of its own, so that whoever breaks out of one is nobody to the other. It is written in the
records of the sandbox and of its containers, since what a container has written on disk is the range's, and is free
again when they are gone. Looking for a free one begins where the sandbox's id says, so ranges are not soon used again,
and two Kestrels on one machine seldom meet.

The ranges lie where systemd reserves room for containers that pick theirs themselves (UIDS-GIDS.md, "Summary": up to
1879048191), above what useradd hands to people for theirs (`man 5 login.defs`, SUB_UID_MAX: 600100000), and begin at
multiples of 65536 as the image format has users below that.
"""

from collections.abc import Collection
from hashlib import blake2b

from kestrel.base.errors import ResourceExhausted

SIZE = 65_536
FIRST = 600_113_152
COUNT = (1_879_048_192 - FIRST) // SIZE


def free(sandbox: str, taken: Collection[int]) -> int:
    """Return the host's number of user 0 in a range that is not among those taken."""
    wish = int.from_bytes(blake2b(sandbox.encode(), digest_size=8).digest(), "big")
    for number in range(COUNT):
        first = FIRST + (wish + number) % COUNT * SIZE
        if first not in taken:
            return first
    raise ResourceExhausted(f"all {COUNT} ranges of users are taken", hint="remove containers, or use --userns host")


def mappings(first: int) -> list[dict[str, int]]:
    """Return the spec's `uidMappings` and `gidMappings` of the containers of a range."""
    return [{"containerID": 0, "hostID": first, "size": SIZE}]


def users(first: int) -> range:
    """Return the host's numbers of a range; an empty one for the host's own users."""
    return range(first, first + SIZE) if first else range(0)
