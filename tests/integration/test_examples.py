"""The examples in Python run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_an_image_is_built_from_python_and_a_daemon_finds_it(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "hello").write_text("hello")
    (context / "unused").write_text("x")
    shutil.copy("/bin/busybox", context)
    (context / "Dockerfile").write_text(
        'FROM scratch\nARG VERSION\nLABEL version=$VERSION\nCOPY hello /\nCOPY busybox /\nRUN ["/busybox", "true"]\n'
    )
    with Instance.make() as kestrel:
        run = [sys.executable, str(EXAMPLES / "build/build.py"), str(context)]
        first, second = (subprocess.run(run, env=kestrel.environment, text=True, capture_output=True) for _ in "12")
        assert first.returncode == 0, first.stderr
        assert "COPY hello /: ran, first build of this step" in first.stdout
        assert kestrel.traces(files=False) == []
        assert "2 files of the context were read" in first.stdout
        assert "COPY hello /: reused, nothing it depends on changed" in second.stdout
        image = re.findall(r"sha256:[0-9a-f]{64}$", first.stdout.strip())[0]
        assert kestrel.inspect("from-python:1")["id"] == image
        assert (tmp_path / "image.tar").stat().st_size
        beside = subprocess.run(run, env=kestrel.environment, text=True, capture_output=True)
        assert "a Kestrel runs on" in beside.stderr
