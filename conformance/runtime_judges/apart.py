"""Running programs of other projects so that what they leave ends with them.

They get a mount and a PID namespace of their own, whose end kills whatever still runs, a network namespace with `lo`
alone, a UTS namespace, since some rename the host, a directory for what they write, and a terminal, which runtimes
want of a container in the foreground. Control groups have no namespace that would hold them: those whose names are a
suite's own are removed. `STAND_INS` come first on their PATH: commands of which this machine may have less than they
use.
"""

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kestrel.testing.groups import groups_called, remove_group
from kestrel.testing.instance import children

STAND_INS = Path(__file__).parent / "stand_ins"

NAMESPACES = [
    *("unshare", "--mount", "--propagation=private", "--net", "--uts", "--pid", "--fork", "--kill-child"),
    "--mount-proc",
    # The first process of the namespace reaps what containers leave behind.
    *("sh", "-c", 'ip link set lo up && "$@"; exit $?', "sh"),
]


def run(words: Sequence[str], directory: Path, environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Run a program to its end, or for so many seconds; return its exit code (124 after that) and what it said."""
    line = ["script", "--quiet", "--return", "--command", shlex.join([*NAMESPACES, *words]), "/dev/null"]
    reader, writer = os.pipe()  # input that does not end: at its end `script` would type into the terminal
    settings = {**os.environ, **environment, "TMPDIR": str(directory)}
    try:
        with subprocess.Popen(
            line,
            cwd=directory,
            env={**settings, "PATH": f"{STAND_INS}:{settings['PATH']}"},
            stdin=reader,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as started:
            try:
                said, code = started.communicate(timeout=seconds)[0], started.returncode
            except subprocess.TimeoutExpired:
                for child in children(started.pid):  # not `script`, whose end the namespaces' makers would not notice
                    os.kill(child, signal.SIGKILL)
                said, code = started.communicate()[0], 124
            return code, said.decode(errors="replace")
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def place(names: str) -> Iterator[Path]:
    """Give a directory to run in, and take away what is left: it, and new control groups with such names."""
    before = groups_called(names)
    with tempfile.TemporaryDirectory(prefix="conformance-", dir="/var/tmp", ignore_cleanup_errors=True) as scratch:
        os.chmod(scratch, 0o755)  # users of containers have to pass
        try:
            yield Path(scratch)
        finally:
            for group in groups_called(names) - before:
                remove_group(group)
