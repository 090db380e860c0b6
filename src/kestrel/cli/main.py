"""`kestrel`: find the row, read the words, call the function; imports only what the command needs."""

import errno
import os
import sys

from kestrel.base.errors import FailedPrecondition, InvalidArgument, KestrelError, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> "NoReturn":
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: "Sequence[str]") -> int:
    """Run one command and return its exit code: 0, the container's own, or 125 to 127 as docker's."""
    try:
        return _answered(arguments)
    except BrokenPipeError:
        # The reader of our output has gone (`kestrel ps | head -1`); nothing is left to say to anyone.
        _discard(1, 2)
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:
            raise
        return _unwritten(error)
    except KeyboardInterrupt:
        return 130


def _answered(arguments: "Sequence[str]") -> int:
    """Run one command and write all of its output here, where it can still be told that it cannot be written."""
    from kestrel.cli.failures import report

    try:
        return _dispatch(arguments)
    except KestrelError as error:
        return report(error)
    finally:
        if sys.stdout is not None:  # closed by whoever called us
            sys.stdout.flush()


def _unwritten(error: OSError) -> int:
    from kestrel.cli.failures import report

    _discard(1)
    reason = (error.strerror or "").lower()
    return report(FailedPrecondition(f"the output cannot be written: {reason}", hint="is its disk full?"))


def _discard(*streams: int) -> None:
    """Let what Python still holds for these descriptors go nowhere when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)


def _dispatch(arguments: "Sequence[str]") -> int:
    from kestrel.cli.commands import COMMANDS
    from kestrel.cli.options import help_text, parse

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    name = "version" if arguments[0] in ("-v", "--version") else arguments[0]
    command = next((c for c in COMMANDS if c.name == name), None)
    if command is None:
        close = nearest(name, [c.name for c in COMMANDS])
        raise InvalidArgument(
            f"unknown command {name!r}", hint=f"did you mean `kestrel {close}`?" if close else "see `kestrel --help`"
        )
    parsed = parse(command, arguments[1:])
    if parsed.help:
        print(help_text(command))
        return 0
    module_name, function_name = command.function.split(":")
    module = __import__(f"kestrel.cli.{module_name}", fromlist=[function_name])
    code: int = getattr(module, function_name)(parsed)
    return code


def _overview() -> str:
    from kestrel.cli.commands import COMMANDS

    lines = ["Kestrel: from a Dockerfile to a running Pod on one machine.", "", "usage: kestrel COMMAND [OPTIONS]"]
    groups = dict.fromkeys(c.group for c in COMMANDS)
    width = max(len(c.name) for c in COMMANDS)
    for group in groups:
        lines += ["", f"{group}:", *(f"  {c.name:<{width}}  {c.summary}" for c in COMMANDS if c.group == group)]
    return "\n".join([*lines, "", "`kestrel COMMAND --help` shows the options of a command."])
