"""Owners in the upper directory of a container in a user namespace, as its image should have them.

There a file of the container's user 5 belongs to the fifth user of a range of the host's. The same numbers stand in
two extended attributes: an ACL names users and groups (`include/uapi/linux/posix_acl_xattr.h`), and file capabilities
that were given in a user namespace name its root (`man 7 capabilities`, "File capability extended attribute
versioning"). What is not of the range was made by the host, and keeps its owner.
"""

import struct
from typing import Final

ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
CAPABILITY: Final = "security.capability"
_NAMED: Final = (0x02, 0x08)  # ACL_USER, ACL_GROUP: entries whose id means something
_REVISION: Final = 0xFF000000
_REVISION_2, _REVISION_3 = 0x02000000, 0x03000000


def inside(number: int, users: range) -> int:
    """Return what a user or group of the host is in the container."""
    return number - users.start if number in users else number


def inside_xattr(name: str, value: bytes, users: range) -> bytes:
    """Return an extended attribute with the numbers that are in it as the container has them."""
    if not users:
        return value
    if name in ACLS:
        return _acl(value, users)
    if name == CAPABILITY:
        return _capability(value, users)
    return value


def _acl(value: bytes, users: range) -> bytes:
    entries = [
        (tag, rights, inside(number, users) if tag in _NAMED else number)
        for tag, rights, number in struct.iter_unpack("<HHI", value[4:])
    ]
    return value[:4] + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _capability(value: bytes, users: range) -> bytes:
    """A version that names the range's root is the older one without a name: it is root of whoever mounts the image."""
    if len(value) != 24 or struct.unpack_from("<I", value)[0] & _REVISION != _REVISION_3:
        return value
    word, *sets, root = struct.unpack("<6I", value)
    if root == users.start:
        return struct.pack("<5I", word & ~_REVISION | _REVISION_2, *sets)
    return struct.pack("<6I", word, *sets, inside(root, users))
