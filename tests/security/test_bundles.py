"""Bundles that mean harm, or make no sense: a sentence and an exit code, nothing run, nothing left behind."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.testing.runtimes import Bundle, Runtime

pytestmark = pytest.mark.root


def refused(runtime: Runtime, bundle: Bundle, text: str) -> None:
    """What makes no sense is refused in words, or runs as if it were not there; nothing is left of it."""
    bundle.write()
    (bundle.home / "config.json").write_text(text)
    container = runtime.claim()
    answer = runtime("run", "--bundle", str(bundle.home), container, timeout=20)
    assert 0 <= answer.code < 128, "it was killed, or crashed"
    for crash in ("Traceback", "panic:", "Segmentation", "internal error"):
        assert crash not in answer.err, answer.err
    assert answer.code == 0 or answer.err.strip()
    assert runtime("state", container).code != 0
    group = bundle.spec["linux"]["cgroupsPath"]
    assert not list(Path("/sys/fs/cgroup").glob(f"*{group}")), "a control group was left"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("root", True),
        ("process", [1]),
        ("process", {"args": "sh", "cwd": "/"}),
        ("process", {"args": ["sh", None], "cwd": "/"}),
        ("process", {"args": ["true"], "cwd": "/", "user": {"umask": 2**70}}),
        ("process", {"args": ["true"], "cwd": "/", "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2**63, "hard": -1}]}),
        ("mounts", {"destination": "/"}),
        ("mounts", [{"destination": "/tmp", "type": "tmpfs", "options": ["size=" + "9" * 100]}]),
        ("mounts", [{"destination": "/tmp", "type": "nosuchfs", "options": ["\ud800"]}]),
        ("hostname", "x" * 100),
        ("hooks", {"prestart": [{"path": "/bin/true", "timeout": 2**62}]}),
        ("annotations", {"a": {"b": {}}}),
        ("linux", {"namespaces": [{"type": "pid", "path": "/proc/self/ns/net"}, {"type": "mount"}]}),
        ("linux", {"namespaces": [{"type": ["pid"]}]}),
        ("linux", {"namespaces": [{"type": "mount"}], "resources": {"memory": {"limit": "1g"}}}),
        ("linux", {"namespaces": [{"type": "mount"}], "seccomp": {"defaultAction": 5}}),
    ],
    ids=range(16),
)
def test_a_member_that_makes_no_sense_is_refused_in_words(
    runtime: Runtime, bundle: Bundle, member: str, value: Any
) -> None:
    bundle.arguments("true")
    if member == "linux":
        value = {**value, "cgroupsPath": bundle.spec["linux"]["cgroupsPath"]}
    refused(runtime, bundle, json.dumps({**bundle.spec, member: value}))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "1", '"x"', "\0", "{}", '{"a": NaN}', "[" * 100_000, '{"a":' * 100_000, "9" * 100_000,
     '{"ociVersion": "1.0.2", "process": ' + "9" * 10_000 + "}", '{"ociVersion": "\\ud800"}', "\ufeff{}", "1e999999"],
    ids=range(16),
)  # fmt: skip
def test_a_config_that_is_none_is_refused_in_words(runtime: Runtime, bundle: Bundle, text: str) -> None:
    refused(runtime, bundle, text)


@pytest.mark.parametrize("kind", ["absent", "a directory", "a link to itself", "not UTF-8"])
def test_a_config_that_is_no_file_is_refused_in_words(runtime: Runtime, bundle: Bundle, kind: str) -> None:
    config = bundle.write() / "config.json"
    config.unlink()
    if kind == "a directory":
        config.mkdir()
    elif kind == "a link to itself":
        config.symlink_to("config.json")
    elif kind == "not UTF-8":
        config.write_bytes(b'{"ociVersion": "\xff"}')
    answer = runtime("run", "--bundle", str(bundle.home), runtime.claim(), timeout=20)
    assert answer.code > 0
    assert "Traceback" not in answer.err
    assert answer.err.strip()


@pytest.mark.parametrize(
    "path", ["", "nowhere", "config.json", "/dev/null", "rootfs/bin/busybox", "loop", "\0", "x" * 5000]
)
def test_a_root_that_is_no_directory_is_refused_in_words(runtime: Runtime, bundle: Bundle, path: str) -> None:
    (bundle.home / "loop").symlink_to("loop")
    bundle.spec["root"]["path"] = path
    answer = runtime.run(bundle.arguments("true"))
    assert answer.code > 0
    assert "Traceback" not in answer.err
    assert answer.err.strip()


def test_a_root_that_is_a_link_is_the_directory_it_names(runtime: Runtime, bundle: Bundle) -> None:
    (bundle.home / "link").symlink_to("rootfs")
    bundle.spec["root"]["path"] = "link"
    assert runtime.run(bundle.shell("ls /")).out.split() == sorted(os.listdir(bundle.rootfs))


@pytest.mark.parametrize("identifier", ["../x", "/x", "x/../y", "", ".", "..", "a b", "x\n", "-", "x" * 2000, "é"])
def test_an_id_that_would_be_a_path_is_refused(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    bundle.arguments("true").write()
    answer = runtime("run", "--bundle", str(bundle.home), "--", identifier)
    assert answer.code > 0 or identifier == "-"
    assert "Traceback" not in answer.err


def test_many_of_everything_is_carried_out_or_refused(runtime: Runtime, bundle: Bundle) -> None:
    bundle.spec["process"]["env"] += [f"V{n}={'x' * 100}" for n in range(5000)]
    bundle.spec["linux"]["maskedPaths"] += [f"/nowhere/{n}" for n in range(2000)]
    bundle.spec["annotations"] = {f"a{n}": "x" for n in range(5000)}
    answer = runtime.run(bundle.shell("env | grep -c ^V"))
    assert answer.code == 0, answer.err
    assert answer.out == "5000\n"


def test_a_mount_of_a_directory_into_itself_ends(runtime: Runtime, bundle: Bundle) -> None:
    bundle.bind(bundle.rootfs, "/home")
    bundle.bind(bundle.home, "/home/home")
    bundle.bind("/", "/tmp", "ro")
    answer = runtime.run(bundle.shell("ls /home/home/rootfs >/dev/null && echo seen"))
    assert answer.out == "seen\n", answer.err
