"""The validation programs of opencontainers/runtime-tools.

The module comes through the Go module proxy, at a pinned version, and is built outside of this repository: 58 programs
that call the runtime named by RUNTIME, and `runtimetest`, which they put into containers to look around.

They run in a mount namespace and a temporary directory of their own: asked for a container without a mount namespace,
a runtime may mount on the host (runc does), and nobody would take that away again.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime_judges import apart
from runtime_judges.suite import AbsentError, Suite
from runtime_judges.tap import Result, read

MODULE = "github.com/opencontainers/runtime-tools"
VERSION = "v0.9.1-0.20250523060157-0ea5ed0382a2"
GROUPS = r"cgrouptest|testdir"
TIMEOUT = 150  # seconds for one program; most need less than one
_BLOCK = (
    "it gives leaf weights, which went with Linux 5.0, and a weight to the block device 8:0, which is not on this "
    "machine (nor has every kernel weights)"
)
_LSM = "the security module it asks for is not in force in this kernel; being refused is what the profile is for"

REASONS = (
    ("delete", "", "deleting a `created` container is to fail; podman and containerd do it, so runc and we let them"),
    ("start", "", "a container without `process` is refused at `create` already, as by runc, not at `start`"),
    ("hooks_stdin", "prestart", ("it wants the state `created`; since runtime-spec 1.0.2 prestart belongs to `create`, "
     "so the state is `creating`")),
    ("linux_cgroups_blkio", "", _BLOCK),
    ("linux_cgroups_relative_blkio", "", _BLOCK),
    ("linux_cgroups_hugetlb", "", "the hugetlb controller is not mounted here"),
    ("linux_cgroups_relative_hugetlb", "", "the hugetlb controller is not mounted here"),
    ("linux_cgroups_network", "", "the net_cls and net_prio controllers are not mounted here"),
    ("linux_cgroups_relative_network", "", "the net_cls and net_prio controllers are not mounted here"),
    ("linux_cgroups_memory", "kernel", "Linux no longer limits kernel memory alone; the limit is left out, as by runc"),
    ("linux_cgroups_relative_memory", "kernel", "Linux no longer limits kernel memory alone, as above"),
    ("linux_mount_label", "", _LSM),
    ("linux_process_apparmor_profile", "", _LSM),
    ("misc_props", "", "the program forgets to copy `runtimetest` into the bundle that it then runs"),
    ("pidfile", "", ("it kills a container of `true`, which has ended, and wants that to work; runc passes at times, "
     "since its `start` does not wait for the program")),
    ("process_capabilities", "CAP_SYS_RESOURCE", ("this machine does not have CAP_SYS_RESOURCE to give (runc gives up "
     "before the program begins)")),
    ("process_capabilities_fail", "", ("it wants an unknown capability to be an error; the specification made it a "
     "warning, so that images may name capabilities of newer kernels")),
    ("process_rlimits", "", "the Go program that looks raises its own soft limit of open files when it starts"),
)  # fmt: skip


def go() -> str | None:
    """Return the go command, if there is one."""
    return shutil.which("go") or next((p for p in ("/usr/local/go/bin/go",) if os.access(p, os.X_OK)), None)


def locate(work: Path) -> Path:
    """Fetch and build what is not there yet; return the directory to run in."""
    source = work / "runtime-tools"
    stamp = source / f".built-{VERSION}"
    if stamp.exists():
        return source
    command = go()
    if command is None:
        raise AbsentError("there is no go command on PATH or in /usr/local/go/bin")
    environment = {
        **os.environ,
        "GOFLAGS": "-mod=mod",
        "GOPATH": str(work / "go"),
        "GOCACHE": str(work / "cache"),
        "CGO_ENABLED": "0",
    }
    empty = work / "empty"
    empty.mkdir(parents=True, exist_ok=True)
    (empty / "go.mod").write_text("module empty\n")
    subprocess.run([command, "mod", "download", f"{MODULE}@{VERSION}"], cwd=empty, env=environment, check=True)
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(work / "go/pkg/mod" / f"{MODULE}@{VERSION}", source)
    subprocess.run(["chmod", "-R", "u+w", str(source)], check=True)
    targets = [(f"validation/{name}/{name}.t", f"./validation/{name}") for name in names(source)]
    for output, package in [*targets, ("runtimetest", "./cmd/runtimetest")]:
        subprocess.run([command, "build", "-o", output, package], cwd=source, env=environment, check=True)
    stamp.touch()
    return source


def names(source: Path) -> list[str]:
    """Return the names of the programs."""
    return sorted(p.name for p in (source / "validation").iterdir() if p.is_dir() and p.name != "util")


def run(source: Path, runtime: str, only: Sequence[str]) -> Iterator[Result]:
    """Run the programs against a runtime, one after the other."""
    for name in only or names(source):
        with apart.place(GROUPS) as scratch:
            yield _judge(source, runtime, name, scratch)


def _judge(source: Path, runtime: str, name: str, scratch: Path) -> Result:
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--uts", "--propagation=private", f"validation/{name}/{name}.t"],
            cwd=source,
            env={**os.environ, "RUNTIME": runtime, "TMPDIR": str(scratch)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired as expired:
        return read(name, (expired.stdout or b"").decode(errors="replace"), 124, f"not done after {TIMEOUT} s")
    lines = [line for line in done.stderr.splitlines() if "level=error" in line] or done.stderr.splitlines() or [""]
    return read(name, done.stdout, done.returncode, lines[0].partition("msg=")[2] or lines[0])


SUITE = Suite(
    name="runtime-tools",
    about=f"""The validation programs of `{MODULE}` at `{VERSION}`. A program that ends early without
naming a failure counts as one failure.""",
    locate=locate,
    run=run,
    reasons=REASONS,
)
