"""`kestrel-runtime` from its first instruction on.

A command that becomes the parent of a container's process runs from a copy of the interpreter that nobody can write
to: a container that opens /proc/self/exe for writing finds a read-only file (CVE-2019-5736). That needs a second start
of the interpreter, so the first does nothing else. The second finds all it loads in one file.
"""

import gc
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PARENTS = frozenset(("create", "run", "exec"))
"""Commands that become parents. A word that is not the command but an id like one costs a start, and no more."""


def main() -> "NoReturn":
    """Run the command line of this process."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:  # it was closed: what is opened next would take its number
            posix.set_inheritable(posix.open("/dev/null", posix.O_RDWR), True)
    pack = None
    if not PARENTS.isdisjoint(sys.argv):
        from kestrel.linux import sealed

        sealed.begin_again()
        from kestrel.base.packed import Pack

        folder = __file__.rpartition("/")[0]
        pack = Pack(f"{folder}/__pycache__/main.{sys.implementation.cache_tag}.pack")
    gc.disable()  # it ends before there is anything to collect
    import os

    from kestrel.runtime import command

    code = command.main()
    if pack is not None and code == 0:  # what explains a failure is not for every start
        pack.keep()
    os._exit(code)  # the interpreter's own end takes as long as some commands do
