"""What an ended container says of its own end (kubernetes.io "Determine the Reason for Pod Failure").

It is what the container wrote to its terminationMessagePath, 4096 bytes at most; when that is empty, the container
failed and asks for FallbackToLogsOnError, the end of its log: 2048 bytes or 80 lines, whichever is less.
"""

from pathlib import Path

from kestrel.base.errors import KestrelError
from kestrel.kube.client import JSONObject
from kestrel.logs import LogOptions, render
from kestrel.pods.model import PodContainer

MESSAGE_LIMIT = 4096
LOG_BYTES = 2048
LOG_LINES = 80


async def last_words(path: Path, spec: JSONObject, container: PodContainer) -> str:
    """Return the message of a container that has ended, empty when there is none."""
    try:
        with path.open("rb") as file:
            written = file.read(MESSAGE_LIMIT)
    except OSError:
        written = b""
    if written or container.exit_code == 0 or spec.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return written.decode(errors="replace")
    try:
        lines = [line async for line in render(Path(container.log_path), LogOptions(tail=LOG_LINES))]
    except KestrelError:
        return ""
    return b"".join(lines)[-LOG_BYTES:].decode(errors="replace")
