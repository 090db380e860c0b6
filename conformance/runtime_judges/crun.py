"""crun's tests in Python, run from its source tree: `$KESTREL_CORPORA/crun`, with tests/init as its own make builds it.

A program of the suite makes bundles below the working directory, whose only program is that `init`, and calls the
runtime named by OCI_RUNTIME. It runs in a mount and a PID namespace of its own, so that whatever it leaves running or
mounted ends with it; the control groups that are left are removed. It has a terminal, which some tests need. Tests of
what only crun has are left out for every runtime alike: `LEFT_OUT` names them.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from kestrel.linux import cgroups
from runtime_judges.suite import Suite, corpus
from runtime_judges.tap import Result, read

INIT = "tests/init"
TIMEOUT = 300  # seconds for one program; most need less than ten
PROGRAM = Path(__file__).parent / "crun_program"

LEFT_OUT = {
    "test_delete": {
        "test_simple_delete": "on cgroup v1 it freezes the process in a group of the host's, where nothing can kill it",
    },
}
"""Programs, their tests (`*` for all), and why nobody is judged by them."""

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


APART = [
    *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"),
    # The first process of the namespace reaps what containers leave behind. Mounts are shared among these namespaces
    # as on most machines, but with none of the host's.
    *("sh", "-c", 'mount --make-rshared / && "$@"; exit $?', "sh"),
]

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
    before = _groups()
    with tempfile.TemporaryDirectory(prefix="conformance-", dir="/var/tmp") as scratch:
        program = [*APART, sys.executable, str(PROGRAM), str(source / "tests" / f"{name}.py")]
        program += [f"{test}={why}" for test, why in LEFT_OUT.get(name, {}).items()]
        environment = {
            **os.environ,
            "OCI_RUNTIME": _spoken_to(runtime, Path(scratch)),
            "INIT": str(source / INIT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": scratch,
        }
        try:
            done = subprocess.run(
                ["script", "--quiet", "--return", "--command", shlex.join(program), "/dev/null"],
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
            )
            code, output = done.returncode, done.stdout
            complaint = (output.splitlines() or [""])[-1]
        except subprocess.TimeoutExpired as expired:
            code, complaint = 124, f"not done after {TIMEOUT} s"
            output = (expired.stdout or b"").decode(errors="replace")
        finally:
            for group in _groups() - before:
                _remove(group)
    return read(name, output, code, complaint)


def _groups() -> set[str]:
    """Return the groups that tests have made at the top: the ids of most containers begin like this."""
    top = {path for directory in Path(cgroups.ROOT).iterdir() for path in (directory, *directory.glob("*"))}
    return {path.name for path in top if path.name.startswith(("test-", "test_"))}


def _remove(group: str) -> None:
    """Remove a group that is empty now, as those of the program are; another's is in use."""
    try:
        cgroups.remove(group, timeout=0.5)
    except OSError:
        pass


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
