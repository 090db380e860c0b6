"""up, down, status, df, version, help, demo: what they print and how they end."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kestrel import __version__
from kestrel.testing.instance import Instance

pytestmark = pytest.mark.root

DEMO = Path(__file__).parents[2] / "examples" / "hello"


def test_up_says_how_to_reach_it_and_again_that_it_is_up(platform: Instance) -> None:
    answer = platform("up")
    assert answer.err == "kestrel is up already\n"
    assert f"https://127.0.0.1:{platform.kubernetes_port}" in answer.out
    assert f"http://127.0.0.1:{platform.registry_port}" in answer.out
    assert platform("up", "--json").json()["running"] is True


def test_status_as_json_has_what_a_script_needs(platform: Instance) -> None:
    state = platform("status", "--json").json()
    assert state["registry"]["host"] == platform.registry
    assert state["root"] == str(platform.root)
    assert Path(state["kubernetes"]["kubeconfig"]).exists()
    assert os.path.exists(f"/proc/{state['pid']}")


def test_what_does_not_run_is_said_with_code_3_and_nothing_is_started() -> None:
    with Instance.make() as kestrel:
        assert kestrel("status", code=3).out.startswith("kestrel is not running")
        assert kestrel("status", "--json", code=3).json() == {"running": False}
        assert kestrel("down").err == "kestrel is not running\n"
        assert kestrel.processes() == []


def test_df_adds_up_to_the_byte(platform: Instance) -> None:
    usage = platform("df", "--json").json()
    assert usage["total"] == sum(row["bytes"] for row in usage["rows"])
    assert {"blobs", "layers"} <= {row["what"] for row in usage["rows"]}
    assert "total" in platform("df").out


def test_help_and_version_need_no_daemon() -> None:
    with Instance.make() as kestrel:
        overview = kestrel("--help").out
        for name in ("up", "run", "build", "push", "demo"):
            assert f"\n  {name} " in overview
        assert "--publish" in kestrel("run", "--help").out
        assert kestrel("version").out == f"kestrel {__version__}\n"
        assert kestrel("version", "--json").json() == {"version": __version__}
        assert not kestrel.run_directory.exists()


def test_any_command_starts_the_daemon() -> None:
    with Instance.make() as kestrel:
        assert kestrel("images").out.startswith("REPOSITORY")
        assert kestrel("status").out


def test_the_socket_is_roots_alone(platform: Instance) -> None:
    path = platform.run_directory / "kestrel.sock"
    assert path.stat().st_uid == 0
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_doors_listen_on_loopback_alone(platform: Instance) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    for port in (platform.kubernetes_port, platform.registry_port):
        own = [fields[1] for fields in listening if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"]
        assert own == [f"0100007F:{port:04X}"]
    with socket.create_connection(("127.0.0.1", platform.registry_port), timeout=5):
        pass


def test_two_kestrels_run_side_by_side(platform: Instance) -> None:
    with Instance.make() as other:
        other("up")
        assert other("images", "-q").out == ""
        assert platform("images", "-q").out != ""
        other("down", "--all")
        assert other.traces() == []
    assert platform("run", "--rm", "box", "echo", "still here").out == "still here\n"


def _packages_reachable(directory: Path) -> bool:
    """Ask pip, which knows where this machine gets its packages from."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, "tabulate==0.9.0"]
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@pytest.mark.timeout(300)
def test_the_demo_goes_the_whole_way_and_is_cached_the_second_time(own_platform: Instance, tmp_path: Path) -> None:
    if not _packages_reachable(tmp_path):
        pytest.skip("the demo needs PyPI and Debian's packages, which cannot be reached from here")
    answer = own_platform("demo", str(DEMO), timeout=200)
    assert "what happened:" in answer.out
    assert "succeeded" in answer.out
    again = json.loads(own_platform("demo", "--json", str(DEMO), timeout=60).out)["steps"]
    builds = [step for step in again if step["step"].startswith("build")]
    assert len(builds) == 2
    for step in builds:
        total, reused = (int(word) for word in step["what"].split() if word.isdigit())
        assert total == reused
