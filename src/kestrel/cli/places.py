"""Where the command finds the daemon."""

import os


def run_directory() -> str:
    """Return where the daemon's socket and run-time state are: $KESTREL_RUN, or the system's place."""
    return os.environ.get("KESTREL_RUN", "/run/kestrel")
