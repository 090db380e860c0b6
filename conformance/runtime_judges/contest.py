"""youki's contest, run from its source tree as its own scripts build it: `$KESTREL_CORPORA/youki`.

The program `contest` has groups of tests and calls the runtime; `runtimetest` is what it puts into containers to look
around. A group is a program here, run alone: one that panics would take those after it along. So would a test that
panics with those of its group: such a group is run in `PARTS`.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime_judges import apart
from runtime_judges.suite import Suite, corpus
from runtime_judges.tap import Result

BUNDLE = "tests/contest/contest/bundle.tar.gz"
TIMEOUT = 100  # seconds for a group; most need less than five
GROUPS = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|runtime-test|test-v1-.*"

_LINE = re.compile(r"^\d+ / \d+ : (.*) : (ok|not ok|skipped)$")
_PANIC = re.compile(r"^thread '.*' .*panicked at (.*)$")
_STAMPS = re.compile(r'time="[^"]*" level=error msg=|/tmp/\S+|/var/tmp/\S+')

_CRIU = "checkpoint and restore come later: this runtime does not drive CRIU"
LEFT_OUT = {"checkpoint_restore": _CRIU}
"""Groups that nobody is judged by."""

PARTS = {
    "exec": (
        "exec::cgroup_test",
        "exec::preserve_fds_test,ignore_paused_test,mount_test",
        "exec::no_capabilities_test,unset_bounding_capabilities_test,new_privileges_test,some_capabilities_test",
        "exec::capabilities_by_flag_test_case1,capabilities_by_flag_test_case2",
    )
}

REASONS = (
    ("cgroup_v1_blkio", "", "it limits the block device 8:0, which is not on this machine"),
    ("cgroup_v1_pids", "zero", "it takes 0 for no limit; the specification has -1 for that, and runc's tests want 1"),
    ("exec", "", "its test of control groups is for version 2 and panics on version 1"),
    ("fd_control", "only_stdio", "it preserves 100 descriptors where there are fewer, which runc and we refuse"),
    ("hooks", "hooks", ("its startContainer hooks fail, since they write to a path of the host: then `start` fails and "
     "poststart is not run, as the specification has it; runc goes on")),
    ("huge_tlb", "", "no hugetlb controller is mounted here"),
    ("lifecycle", "checkpoint", _CRIU),
    ("ns_itype", "", "it unmounts the root that runc leaves mounted on the host; ours leaves none, and it panics"),
    ("poststop_fail", "", "it wants `delete` to fail with a poststop hook; the specification wants a warning"),
    ("process_capabilities_bounding", "", ("it wants capabilities outside of the bounding set to be an error; "
     "crun's tests want them, and the kernel lets them be")),
    ("process_capabilities", "", "this machine does not have CAP_SYS_RESOURCE to give"),
    ("seccomp_notify", "", ("it wants the agent to be told during `create`; here the filter is put in place last, at "
     "`start`, because what waits for that is an interpreter, which needs more system calls than a profile may allow")),
)  # fmt: skip


def locate(_work: Path) -> Path:
    """Return the source tree."""
    return corpus("youki", ("contest", "runtimetest", BUNDLE))


def names(source: Path) -> list[str]:
    """Return the names of the groups."""
    with _place(source) as scratch:  # it unpacks its bundle before anything else
        listed = subprocess.run(
            [source / "contest", "list"],
            cwd=scratch,
            env={**os.environ, "TMPDIR": str(scratch)},
            capture_output=True,
            text=True,
            check=True,
        )
    return listed.stdout.split()


@contextmanager
def _place(source: Path) -> Iterator[Path]:
    with apart.place(GROUPS) as scratch:
        (scratch / "bundle.tar.gz").symlink_to(source / BUNDLE)
        yield scratch


def run(source: Path, runtime: str, only: Sequence[str]) -> Iterator[Result]:
    """Run the groups against a runtime, one after the other."""
    for name in (name for name in names(source) if not only or name in only):
        yield Result(name, skipped=[f"all ({LEFT_OUT[name]})"]) if name in LEFT_OUT else _judge(source, runtime, name)


def _judge(source: Path, runtime: str, name: str) -> Result:
    judged = Result(name)
    for part in PARTS.get(name, (name,)):
        found = _judge_part(source, runtime, name, part)
        judged.passed += found.passed
        judged.failed += found.failed
        judged.skipped += found.skipped
        judged.output += found.output
    return judged


def _judge_part(source: Path, runtime: str, name: str, part: str) -> Result:
    with _place(source) as scratch:
        words = [str(source / "contest"), "run", "--runtime", runtime, "--runtimetest", str(source / "runtimetest")]
        # It leaves tests out for runtimes of these names only.
        kind = "runc" if Path(runtime).name == "runc" else "another"
        code, output = apart.run([*words, "-t", part], scratch, {"RUNTIME_KIND": kind, "RUST_BACKTRACE": "0"}, TIMEOUT)
    return read(name, output, code)


def read(name: str, output: str, code: int) -> Result:
    """Sort what was said; a group that ends before it has said all counts as one failure more."""
    result = Result(name, output=output)
    kinds = {"ok": result.passed, "not ok": result.failed, "skipped": result.skipped}
    lines = output.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        found = _LINE.match(line)
        if found:
            test, verdict = found.groups()
            why = _STAMPS.sub("", following.strip()) if following.startswith("\t") and verdict != "ok" else ""
            kinds[verdict].append(f"{test} ({why})" if why else test)
    panics = [found[1] for line in lines if (found := _PANIC.match(line))]
    if panics or code == 124:
        result.failed.append(f"panicked at {panics[0]}" if panics else f"was not done after {TIMEOUT} s")
    return result


SUITE = Suite(
    name="contest",
    about="youki's `contest`, a program here being a group there.",
    locate=locate,
    run=run,
    reasons=REASONS,
)
