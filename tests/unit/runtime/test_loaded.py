"""What the runtime loads: commands do it each time they are called, and every shim has the zygote's memory."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
HEAVY = {"collections", "dataclasses", "enum", "functools", "inspect", "json", "re", "signal", "socket", "typing"}


def loaded(*modules: str) -> set[str]:
    """Return what is loaded with these modules of `kestrel`."""
    names = ", ".join(f"kestrel.{module}" for module in modules)
    program = f"import sys; sys.path.append({str(SOURCE)!r}); import {names}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["zygote", "shim", "cold", "verbs", "ending", "starting", "handed", "joining", "figures", "features", "console"],
)
def test_nothing_that_takes_longer_to_load_than_what_it_is_for(module: str) -> None:
    assert not HEAVY & loaded(f"runtime.{module}")


def test_what_is_said_between_processes_loads_nothing_more() -> None:
    program = f"""import sys; sys.path.append({str(SOURCE)!r}); from kestrel.runtime import messages
messages.to_json(messages.Exited(container_id="c", exit_code=1)); print(*sys.modules)"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("module", ["verbs", "starting", "ending"])
def test_commands_that_make_no_process_make_no_system_calls_of_their_own(module: str) -> None:
    found = loaded("runtime.command", f"runtime.{module}", "linux.cgroups.v1", "linux.cgroups.v2")
    assert not {"ctypes", "_ctypes", "kestrel.runtime.plan"} & found


def test_sealing_comes_before_all_else() -> None:
    found = loaded("runtime.main", "linux.sealed")
    assert {name for name in found if name.startswith("kestrel.")} == {
        "kestrel.linux", "kestrel.linux.abi", "kestrel.linux.sealed", "kestrel.runtime", "kestrel.runtime.main",
    }  # fmt: skip
    assert not {"os", "ctypes", "struct"} & found
