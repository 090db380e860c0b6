"""crun's tests in Python, run from its source tree: `$KESTREL_CORPORA/crun`, with tests/init as its own make builds it.

A program of the suite makes bundles below the working directory, whose only program is that `init`, and calls the
runtime named by OCI_RUNTIME. Tests of what only crun has are left out for every runtime alike: `LEFT_OUT` names them.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime_judges import apart
from runtime_judges.suite import Suite, corpus
from runtime_judges.tap import Result, read

INIT = "tests/init"
TIMEOUT = 120  # seconds for one program; most need less than twenty
SHARED = ["sh", "-c", 'mount --make-rshared / && exec "$@"', "sh"]  # as on most machines; with none of the host's
PROGRAM = Path(__file__).parent / "crun_program"

_HELP = "it looks for the usage text of crun"
_ANNOTATION = "annotations of crun's own (run.oci.*)"

LEFT_OUT = {
    "test_annotations": {"*": _ANNOTATION},
    "test_checkpoint_restore": {
        "*": "it looks for crun's own list of build options in `--version` before it uses CRIU"
    },
    "test_commands": {"version-command": "it looks for the name of crun"},
    "test_delete": {
        "test_simple_delete": "on cgroup v1 it freezes the process in a group of the host's, where nothing can kill it",
        "test_multiple_containers_delete": "`delete --regex` is crun's own",
        "test_help_delete": _HELP,
    },
    "test_exec": {"exec-help": _HELP},
    "test_hooks": {"test-annotation-hook-stdout-stderr": _ANNOTATION},
    "test_mounts": {"mount-help": _HELP, "mount-add-remove-mounts": "`mounts` is a command of crun's own"},
    "test_oci_features": {"crun-features": "it compares with what crun has, to its commit and its annotations"},
    "test_seccomp": {
        "seccomp-listener": "it waits for ever for the listener of a profile without SCMP_ACT_NOTIFY, which needs none",
        "annotation-seccomp-fail-unknown-syscall": _ANNOTATION,
    },
    "test_start": {"start": "it reads a file in which crun keeps its state", "help": _HELP},
    "test_uid_gid": {"keep-groups": _ANNOTATION},
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


REASONS = (
    ("test_capabilities", "unknown-caps", ("the specification made an unknown capability a warning, so that images may "
     "name those of newer kernels")),
    ("test_cgroup_setup", "cgroup-hugetlb", "the hugetlb controller is not mounted here"),
    ("test_cgroup_setup", "cgroup-v1-exec-cgroup-subpath", ("it makes the group to join in one hierarchy only; as by "
     "runc, it has to be in each that the container is in")),
    ("test_exec", "exec_add_no_new_privileges", ("it wants `exec` to drop the container's noNewPrivileges; it is kept, "
     "as by runc")),
    ("test_hooks", "test-hook-env-inherit", ("a hook without `env` has none: what is in the caller's environment does "
     "not reach it (CVE-2025-23266)")),
    ("test_hooks", "poststop-hook", "the warning is there, in runc's words"),
    ("test_mounts", "mount-tmpfs-to-rootfs", "it wants `tmpcopyup` on / to be refused, which works here"),
    ("test_preserve_fds", "preserve-fds-some", ("it preserves 100 descriptors, few of which are open; refused, as by "
     "runc: the others would be the runtime's own")),
    ("test_scheduler", "", ("this kernel has real-time group scheduling: a group of version 1 that was given no "
     "realtimeRuntime may not hold such a process (runc here does not know `scheduler` and passes)")),
    ("test_start", "listen_pid_env", ("LISTEN_FDS announces a socket and none is open; refused, since the descriptor "
     "would be the runtime's own")),
    ("test_terminal", "console-socket", "the test calls a function of the suite with an argument it does not have"),
    ("test_terminal", "terminal-allocation", "the test calls its init without saying which descriptor to look at"),
    ("test_terminal", "", ("it detaches with a terminal and without --console-socket, which is an error, as another "
     "test of the suite wants it to be")),
    ("test_tty", "test-detach-tty", "its config.json has a number among process.args, which are text"),
)  # fmt: skip


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
    with apart.place(r"test([-_].*)?") as scratch:
        program = [*SHARED, sys.executable, str(PROGRAM), str(source / "tests" / f"{name}.py")]
        program += [f"{test}={why}" for test, why in LEFT_OUT.get(name, {}).items()]
        environment = {
            "OCI_RUNTIME": _spoken_to(runtime, scratch),
            "INIT": str(source / INIT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        code, output = apart.run(program, scratch, environment, TIMEOUT)
    said = output.splitlines() or [""]
    return read(name, output, code, f"not done after {TIMEOUT} s" if code == 124 else said[-1])


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
    about="""The tests in Python of crun's source tree: `$KESTREL_CORPORA/crun`, with `tests/init` built by its make.
A runtime that does not know crun's options is called without them. Tests of what only crun has are skipped.""",
    locate=locate,
    run=run,
    reasons=REASONS,
)
