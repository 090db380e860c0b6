"""crun's tests in Python, run from its source tree: `$KESTREL_CORPORA/crun`, with tests/init as its own make builds it.

A program of the suite makes bundles below the working directory, whose only program is that `init`, and calls the
runtime named by OCI_RUNTIME. Tests of what only crun has are left out for every runtime alike; `EXTENSIONS` names them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime_judges.suite import Suite, corpus
from runtime_judges.tap import Result, read

INIT = "tests/init"
TIMEOUT = 600  # seconds for one program; most need less than ten
STAND_INS = Path(__file__).parent / "stand_ins"

EXTENSIONS: dict[str, dict[str, str]] = {}
"""Programs, their tests, and what of crun's own they are about."""

AS_RUNC = """#!/bin/sh
# crun's command line for a runtime with runc's: the options that only crun has are left out.
left=$#
while [ $left -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    case $word in
        --cgroup-manager | --config) shift; left=$((left - 1)) ;;
        --cgroup-manager=* | --config=*) ;;
        *) set -- "$@" "$word" ;;
    esac
done
exec {runtime} "$@"
"""

REASONS: tuple[tuple[str, str, str], ...] = ()


def locate(_work: Path) -> Path:
    """Return the source tree."""
    return corpus("crun", (INIT, "tests/tests_utils.py"))


def names(source: Path) -> list[str]:
    """Return the names of the programs."""
    return sorted(path.stem for path in (source / "tests").glob("test_*.py"))


def run(source: Path, runtime: str, only: Sequence[str]) -> Iterator[Result]:
    """Run the programs against a runtime, one after the other."""
    for name in only or names(source):
        if (source / "tests" / f"{name}.py").exists():
            yield _judge(source, runtime, name)


def _judge(source: Path, runtime: str, name: str) -> Result:
    with tempfile.TemporaryDirectory(prefix="conformance-", dir="/var/tmp") as scratch:
        # Asked for a container without a mount namespace a runtime may mount on the host, and nobody would take that
        # away again.
        command = ["unshare", "--mount", "--propagation=private", sys.executable, str(source / "tests" / f"{name}.py")]
        environment = {
            **os.environ,
            "OCI_RUNTIME": _spoken_to(runtime, Path(scratch)),
            "INIT": str(source / INIT),
            "PYTHONPATH": str(STAND_INS),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": scratch,
        }
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, errors="replace", timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired as expired:
            return read(name, (expired.stdout or b"").decode(errors="replace"), 124, f"not done after {TIMEOUT} s")
        return read(name, done.stdout, done.returncode, (done.stderr.splitlines() or [""])[-1])


def _spoken_to(runtime: str, scratch: Path) -> str:
    """Return the command to call: one that knows crun's options, or a script in front of one that does not."""
    told = subprocess.run([runtime, "--help"], capture_output=True, text=True)
    if "--cgroup-manager" in told.stdout:
        return runtime
    script = scratch / "as-runc"
    script.write_text(AS_RUNC.replace("{runtime}", shutil.which(runtime) or runtime))
    script.chmod(0o755)
    return str(script)


SUITE = Suite(
    name="crun",
    about="The tests in Python of crun's source tree.",
    locate=locate,
    run=run,
    reasons=REASONS,
)
