"""The keeper: the process beside a sandbox, and all that is left of its shim while nothing happens.

CPython counts references inside its objects, so every page that a fork works with becomes its own: a shim that has
started a container has three megabytes of them. The keeper therefore does next to nothing. The work is done by a fork
of it, the shim (`shim.py`); when that has had nothing to do for a while, it writes down what it knows and ends, and the
keeper sleeps until a descriptor stirs. Then the next fork goes on where the last one left.

    zygote ─fork─▶ keeper ─fork─▶ shim ─clone3─▶ a container's init, which is the keeper's child (CLONE_PARENT)

Keeper and shim have one table of descriptors (CLONE_FILES), so nothing has to be handed over but what is written down.
What the shim starts are the keeper's children, and orphans come to it too (subreaper): they do not notice that shims
come and go. The keeper reaps them and tells the shim through a pipe, which keeps it for the next one. It dies with a
shim that dies, a shim dies with it, and so do the containers.
"""

from __future__ import annotations

import os
import select
import time

from kestrel.linux import abi, direct, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

AGAIN = 0.1  # seconds until the next try when no process can be made
RESTS = 0  # a shim's exit code when it rests, and another is to go on
ENDS = 1  # and when the sandbox has ended


class Line:
    """What a shim has of its keeper."""

    def __init__(self, keeper: int, ends: int, notes: int, bed: int) -> None:
        """`ends` is read, `notes` a file in memory, `bed` a descriptor that nobody uses: all are the keeper's."""
        self.keeper = keeper
        self.reader = ends
        self._notes = notes
        self._bed = bed

    def ends(self) -> list[tuple[int, int]]:
        """Return the children that have ended: pid and wait status. Waits if there is none."""
        told = os.read(self.reader, 100 * WIDTH)
        return [(int(pid), int(status)) for pid, status in map(bytes.split, told.splitlines())]

    def rest(self, written: str, stirs: int) -> NoReturn:
        """End; another goes on with what is written down, once `stirs` is readable."""
        os.ftruncate(self._notes, 0)
        with open(self._notes, "wb", closefd=False) as file:
            file.seek(0)
            file.write(written.encode())
        os.dup2(stirs, self._bed, inheritable=False)
        os.close(stirs)
        os._exit(RESTS)

    def go_on(self) -> str:
        """Return what the last shim has written down; empty for the first."""
        os.dup2(0, self._bed, inheritable=False)
        with open(self._notes, "rb", closefd=False) as file:
            file.seek(0)
            return file.read().decode()


WIDTH = 32  # bytes in which the end of a child is told: all alike, so that none is read in part


def main(work: Callable[[Line], NoReturn]) -> NoReturn:
    """Keep a sandbox; each of its shims is a fork that is told to `work`.

    Only plain calls: a class or a function more costs pages (see above), in each of hundreds of keepers.
    """
    os.setsid()
    direct.prctl(abi.PR_SET_NAME, b"kestrel-keeper")
    direct.prctl(abi.PR_SET_CHILD_SUBREAPER, 1)
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    notes, bed, keeper = os.memfd_create("notes", os.MFD_CLOEXEC), os.dup(0), os.getpid()
    while True:
        try:
            shim = direct.fork(files=True)
        except OSError:  # no process can be made now; what stirs will wait
            time.sleep(AGAIN)
            continue
        if shim == 0:
            _be_child(keeper)
            work(Line(keeper, reader, notes, bed))
        end = os.waitpid(-1, 0)
        while end[0] != shim:
            os.write(writer, b"%15d %15d\n" % end)
            end = os.waitpid(-1, 0)
        if end[1] != RESTS:
            os._exit(0)
        select.select([bed], [], [])


def _be_child(keeper: int) -> None:
    """Be a process that does more, and dies with the keeper."""
    direct.after_fork()
    direct.prctl(abi.PR_SET_PDEATHSIG, signals.SIGKILL)
    if os.getppid() != keeper:
        os._exit(ENDS)  # it had died before that was asked for
