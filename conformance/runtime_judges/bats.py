"""runc's own tests in bats, run from its source tree as its own make builds it: `$KESTREL_CORPORA/runc`.

tests/cmd/_bin has the helper programs, tests/integration/testdata the images of busybox and Debian under the names by
which get-images.sh looks for them before it would download them. A program here is a file there.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime_judges import apart, runtime_tools
from runtime_judges.suite import AbsentError, Suite, corpus
from runtime_judges.tap import Result, read

TESTS = "tests/integration"
NEEDS = (f"{TESTS}/helpers.bash", "tests/cmd/_bin/recvtty", "tests/cmd/_bin/seccompagent")
IMAGES = ("busybox", "debian")
TOOLS = ("bats", "jq", "gawk", "script", "ip", "losetup")
TIMEOUT = 900  # seconds for one file; most need less than twenty
NOWHERE = "/non-existent-dir"  # which must not be there for `list`, and is after runc has listed what is in it
GROUPS = r"runc-cgroups-integration-test|test.*|ct[0-9]*|attached_ctr|target_.*"

LEFT_OUT = {"checkpoint": "checkpoint and restore come later: this runtime does not drive CRIU"}
"""Files that nobody is judged by."""

_WORDS = "it looks for the names that runc's own parts have in runc's debug log"
REASONS = (
    ("cgroups", "hugetlb", "no hugetlb controller is mounted here, and the kernel has no huge pages"),
    ("cpu_affinity", "", _WORDS),
    ("debug", "", _WORDS),
    ("exec", "--debug", _WORDS),
    ("hooks_so", "", ("its createContainer hook wants to be run in the container's root; ours are run in the bundle, "
     "where the image decides nothing for them (CVE-2025-23266)")),
    ("mounts_propagation_unsafe", "rootfsPropagation slave", ("its own set-up fails before a runtime is called, at "
     "times: a mount namespace can be bound only in an older one (mnt_ns_loop in the kernel)")),
    ("mounts_sshfs", "", ("binds keep the flags of their source unless an option takes one away, and are made by "
     "the host's root, which may; newer runc sets what is named and no more, with the container's rights")),
    ("mounts_recursive", "r*atime", "it wants options of a filesystem behind those of the mount; here it has none"),
    ("rlimits", "", "its preparation raises a hard limit, which needs CAP_SYS_RESOURCE, and this machine has it not"),
    ("run", "/proc/self/exe clone", _WORDS),
    ("run", "execve error", "it wants runc's words and no more; ours go on to name the interpreter that is missing"),
    ("spec", "spec validator", "it clones a repository from the internet"),
)  # fmt: skip


def locate(_work: Path) -> Path:
    """Return the source tree."""
    source = corpus("runc", NEEDS)
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    missing += [] if runtime_tools.go() else ["go, which its script asks for the architecture"]
    images = source / TESTS / "testdata"
    missing += [f"{name}-ARCH.tar.xz in {images}" for name in IMAGES if not list(images.glob(f"{name}-*.tar.xz"))]
    if missing:
        raise AbsentError(f"there is no {', no '.join(missing)}")
    return source


def run(source: Path, runtime: str, only: Sequence[str]) -> Iterator[Result]:
    """Run the files against a runtime, one after the other."""
    names = sorted(path.stem for path in (source / TESTS).glob("*.bats"))
    for name in (name for name in names if not only or name in only):
        yield Result(name, skipped=[f"all ({LEFT_OUT[name]})"]) if name in LEFT_OUT else _judge(source, runtime, name)


def _judge(source: Path, runtime: str, name: str) -> Result:
    shutil.rmtree(NOWHERE, ignore_errors=True)
    with apart.place(GROUPS) as scratch:
        command = scratch / "runc"  # some tests look for this name in what the command says of itself
        command.symlink_to(shutil.which(runtime) or runtime)
        path = f"{os.environ['PATH']}:{Path(runtime_tools.go() or '').parent}"
        words = ["bats", "--tap", str(source / TESTS / f"{name}.bats")]
        code, output = apart.run(words, scratch, {"RUNC": str(command), "PATH": path}, TIMEOUT)
    return read(
        name, output, code, f"not done after {TIMEOUT} s" if code == 124 else output.strip().rpartition("\n")[2]
    )


SUITE = Suite(
    name="bats",
    about="runc's tests in bats, a program here being a file there.",
    locate=locate,
    run=run,
    reasons=REASONS,
)
