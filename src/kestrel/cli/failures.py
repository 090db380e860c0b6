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
    """Map as docker's CLI does (docker/cli cli/command/container/run.go): by what the start error says."""
    text = error.message
    if error.context.get("stage") == "start":
        if "executable file not found" in text or "no such file or directory" in text:
            return NOT_FOUND
        if "permission denied" in text or "is a directory" in text or "exec format error" in text:
            return NOT_EXECUTABLE
        return OURS
    if error.context.get("stage") == "run":
        return OURS
    return 2 if isinstance(error, InvalidArgument) else 1
