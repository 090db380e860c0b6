"""Who a user is, by an image's own files."""

import os
from pathlib import Path

from kestrel.engine.identity import Identity, resolve
from kestrel.linux.mounts import opened


def who(root: Path, user: str) -> Identity:
    with opened(os.open(root, os.O_RDONLY | os.O_DIRECTORY)) as fd:
        return resolve(fd, user)


def test_a_number_without_an_entry_is_in_no_group_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\ndaemon:x:1:\nwheel:x:10:root\n")
    assert who(tmp_path, "1234").groups == (0,)
    assert who(tmp_path, "root").groups == (0, 10)
