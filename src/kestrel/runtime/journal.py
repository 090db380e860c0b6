"""What the runtime's processes have to say for themselves: a line each, on standard error, which is `shim.log`."""

import sys
import time


def note(text: str) -> None:
    """Write a line with the time in UTC."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()
