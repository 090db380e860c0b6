"""Starting the daemon from a command: a new session of its own, a log file, and a pipe on which it says it is ready."""

import fcntl
import os
import sys

from kestrel.base.errors import Unavailable
from kestrel.cli.places import run_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOG_TAIL = 4000  # bytes of the log that are read to find why a start failed


def start_daemon(running: "Callable[[], bool]") -> None:
    """Start the daemon, unless another command does (as `running` then says), and return when it serves.

    Raises Unavailable with the daemon's last words when it does not start.
    """
    run = run_directory()
    os.makedirs(run, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(run, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not running():
            _start(run)
    finally:
        os.close(lock)


def _start(run: str) -> None:
    log_path = os.path.join(run, "daemon.log")
    ready, notify = os.pipe()
    os.set_inheritable(notify, True)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    start = os.fstat(log).st_size
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    flags = ["-I"] + (["-S"] if sys.flags.no_site else [])
    program = f"import sys; sys.path[:] = {sys.path!r}; from kestrel.app.daemon import main; main()"
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, *flags, "-c", program, "--ready-fd", str(notify)],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,
    )
    os.close(notify)
    os.close(null)
    os.close(log)
    with open(ready, "rb") as pipe:
        answer = pipe.readline()
    if answer != b"ready\n":
        os.waitpid(pid, 0)
        reason, hint = _last_words(log_path, start)
        raise Unavailable(f"the daemon did not start: {reason}", hint=hint)


def _last_words(log_path: str, start: int) -> "tuple[str, str]":
    """Return why the daemon says it ended, and what may help."""
    with open(log_path, "rb") as log:
        log.seek(start)
        said = log.read()[-LOG_TAIL:].decode(errors="replace").strip()
    if not said:
        return "it said nothing", f"its log is {log_path}"
    reason, _, hint = said.splitlines()[-1].partition("; hint: ")
    return reason, hint or f"its log has more: {log_path}"
