"""Owners as the image has them, out of what a range of the host's users wrote."""

import struct

from kestrel.archive.shift import inside, inside_xattr

USERS = range(700_000_000, 700_065_536)


def test_users_of_the_range_are_the_containers_and_all_others_stay() -> None:
    assert [inside(number, USERS) for number in (700_000_000, 700_001_000, 700_065_536, 0, 5)] == [
        0, 1000, 700_065_536, 0, 5,
    ]  # fmt: skip
    assert inside(700_000_000, range(0)) == 700_000_000


def test_file_capabilities_lose_the_name_of_the_ranges_root() -> None:
    given = struct.pack("<6I", 0x03000001, 0x400, 0, 0, 0, USERS.start)
    assert inside_xattr("security.capability", given, USERS) == struct.pack("<5I", 0x02000001, 0x400, 0, 0, 0)
    another = struct.pack("<6I", 0x03000001, 0x400, 0, 0, 0, 5)
    assert inside_xattr("security.capability", another, USERS) == another
    plain = struct.pack("<5I", 0x02000001, 0x400, 0, 0, 0)
    assert inside_xattr("security.capability", plain, USERS) == plain


def test_acls_name_the_containers_users_and_groups() -> None:
    def acl(user: int, group: int) -> bytes:
        entries = ((1, 6, 2**32 - 1), (2, 4, user), (4, 4, 2**32 - 1), (8, 5, group), (32, 0, 2**32 - 1))
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)

    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        assert inside_xattr(name, acl(700_001_000, 700_000_005), USERS) == acl(1000, 5)


def test_anything_else_is_left_alone() -> None:
    assert inside_xattr("user.note", b"x" * 24, USERS) == b"x" * 24
    assert inside_xattr("security.capability", b"damaged", USERS) == b"damaged"
