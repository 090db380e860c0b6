import json
from pathlib import Path

import pytest

from kestrel.base.errors import FailedPrecondition
from kestrel.testing.runtimes import Bundle, Runtime, specification


def test_a_bundle_writes_what_it_was_told(tmp_path: Path) -> None:
    bundle = Bundle(home=tmp_path, spec=specification("kestrel-x"))
    bundle.python("print()").bind("/a", "/b", "ro")
    bundle.without_mounts("/dev/shm")
    written = json.loads((bundle.write() / "config.json").read_text())
    assert written["process"]["args"][0] == "/usr/bin/python3"
    assert [m["destination"] for m in written["mounts"]][-2:] == ["/usr", "/b"]
    assert not any(m["destination"] == "/dev/shm" for m in written["mounts"])
    assert written["linux"]["cgroupsPath"] == "/kestrel-x"


def test_python_is_mounted_once(tmp_path: Path) -> None:
    bundle = Bundle(home=tmp_path, spec=specification("kestrel-x")).python("1").python("2")
    assert sum(m["destination"] == "/usr" for m in bundle.spec["mounts"]) == 1


def test_a_runtime_that_is_not_there_is_named() -> None:
    with pytest.raises(FailedPrecondition, match="there is no runtime ktest-none"), Runtime.find("ktest-none"):
        pass
