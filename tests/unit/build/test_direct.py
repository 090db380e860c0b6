"""The tar of a layer, read by somebody else's reader."""

import io
import tarfile

import pytest

from kestrel.build.direct import Item, TarOf
from kestrel.build.tree import FILE


@pytest.mark.parametrize(
    ("uid", "gid", "seconds"), [(5, 6, 7), (8**7, 6, 7), (5, 8**7, 7), (5, 6, 8**11), (8**7, 8**7, 8**11)]
)
def test_owners_and_times_may_be_more_than_a_field_of_a_header_can_say(uid: int, gid: int, seconds: int) -> None:
    written = io.BytesIO()
    items = {name: Item(FILE, 0o644, uid, gid, seconds * 10**9, size=4, data=name.encode() * 4) for name in "ab"}
    TarOf(items, written).write()
    written.seek(0)
    with tarfile.open(fileobj=written) as read:
        found = [(m.name, m.uid, m.gid, int(m.mtime), read.extractfile(m).read()) for m in read]  # type: ignore[union-attr]
    assert found == [(name, uid, gid, seconds, name.encode() * 4) for name in "ab"]
