"""The one place where an error becomes text on stderr and an exit code."""

import os
import sys

from kestrel.base.errors import InvalidArgument, KestrelError

NOT_FOUND, NOT_EXECUTABLE, OURS = 127, 126, 125


def report(error: KestrelError) -> int:
    """Print the error, its excerpt and its hint; return docker's exit code for it."""
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    label = "\033[1;31merror:\033[0m" if colour else "error:"
    print(f"{label} {error.message}", file=sys.stderr)
    excerpt = error.context.get("excerpt")
    if excerpt:
        print(excerpt, file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return exit_code(error)


def exit_code(error: KestrelError) -> int:
    """Map as docker's CLI does (docker/cli cli/command/container/run.go).

    127 and 126 when a program was not found or cannot be executed, which the runtime says itself; 125 when `run` failed
    before that. How a RUN of a Dockerfile ended is told in words: a build fails with 1, as docker's does.
    """
    for code in (NOT_FOUND, NOT_EXECUTABLE) if "line" not in error.context else ():
        if error.context.get("exit_code") == code:
            return code
    if error.context.get("stage") in ("run", "start"):
        return OURS
    return 2 if isinstance(error, InvalidArgument) else 1
