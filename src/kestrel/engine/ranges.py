"""Which users of the host stand behind those of a container in a user namespace.

Each sandbox has a range of its own, so that whoever breaks out of one is nobody to the other. It follows from the
sandbox's id and is never stored: what a container has written stays its own when it is started again. Two sandboxes
may meet on one range (of 28,000); they are then as separate as two without user namespaces, and from the host no less.

The ranges lie where systemd reserves room for containers that pick theirs themselves, by hash, too (UIDS-GIDS.md,
"Summary": 524288 to 1879048191), and begin at multiples of 65536 as the image format has users below that.
"""

from hashlib import blake2b

SIZE = 65_536
FIRST = 524_288
COUNT = (1_879_048_192 - FIRST) // SIZE


def first_id(sandbox: str) -> int:
    """Return the host's number of a sandbox's user 0."""
    number = int.from_bytes(blake2b(sandbox.encode(), digest_size=8).digest(), "big")
    return FIRST + number % COUNT * SIZE


def mappings(sandbox: str) -> list[dict[str, int]]:
    """Return the spec's `uidMappings` and `gidMappings` of a sandbox's containers."""
    return [{"containerID": 0, "hostID": first_id(sandbox), "size": SIZE}]
