"""Run one program of crun's suite: PROGRAM [TEST=WHY ...], where named tests (`*`: all) are skipped for a reason."""

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

from kestrel.linux import abi, syscalls

program, *words = sys.argv[1:]
left_out = dict(word.split("=", 1) for word in words)
sys.path.append(str(Path(program).parent))
import tests_utils  # noqa: E402 - the suite's own module, beside its programs

if not hasattr(os, "unshare"):  # which Python has from 3.12 on
    vars(os).update(unshare=syscalls.unshare, setns=syscalls.setns, CLONE_NEWNET=abi.CLONE_NEWNET)

Tests = dict[str, Callable[[], object]]
everything: Callable[[Tests, str | None], None] = tests_utils.run_all_tests


def run(tests: Tests, wanted: str | None) -> None:
    """Stand in for the suite's own loop over its tests."""
    unknown = left_out.keys() - tests.keys() - {"*"}
    assert not unknown, f"there is no test {unknown}"
    judged = {name: _skipped(left_out.get(name) or left_out.get("*", "")) or test for name, test in tests.items()}
    everything(judged, wanted)


def _skipped(why: str) -> Callable[[], object] | None:
    return (lambda: (77, why)) if why else None


tests_utils.run_all_tests = run
sys.argv = [program]
runpy.run_path(program, run_name="__main__")
