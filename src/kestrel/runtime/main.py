"""`kestrel-runtime` from its first instruction on.

A command that becomes the parent of a container's process runs from a copy of the interpreter that nobody can write
to: a container that opens /proc/self/exe for writing finds a read-only file (CVE-2019-5736). That needs a second start
of the interpreter, so the first does nothing else.
"""

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PARENTS = frozenset(("create", "run", "exec"))
"""Commands that become parents. A word that is not the command but an id like one costs a start, and no more."""


def main() -> "NoReturn":
    """Run the command line of this process."""
    if not PARENTS.isdisjoint(sys.argv):
        from kestrel.linux import sealed

        sealed.begin_again()
    gc.disable()  # it ends before there is anything to collect
    from kestrel.runtime import command

    command.main()
