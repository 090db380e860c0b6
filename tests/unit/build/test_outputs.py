"""Where a build goes besides the store."""

import errno
import os
from pathlib import Path

import pytest

from kestrel.base.errors import ResourceExhausted
from kestrel.build.outputs import Output, file_at


def test_an_output_without_room_is_named_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    output = Output(type="tar", destination=tmp_path / "out.tar")
    sentence = f"the output {output.destination} cannot be written: no space left on device"
    with pytest.raises(ResourceExhausted, match=sentence), file_at(output) as sink:
        sink.write(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
