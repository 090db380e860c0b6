"""build --on-error=shell: one stream carries the build's events and, when a RUN has failed, a shell in its place."""

from kestrel.cli import bare
from kestrel.cli.console import say
from kestrel.cli.remote import CONTROL, Stream, to_error, wait
from kestrel.cli.terminal import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.build.progress import Live, Plain, Raw


def build_and_enter(request: "dict[str, Any]", shown: "Live | Plain | Raw") -> "Any":
    """Build; on failure go into the failed step, and raise the error when its shell has ended."""
    stream = Stream("build", request)
    try:
        while True:
            if not stream.buffered():
                wait(stream.socket, shown.tick)
            channel, data = stream.receive()
            message = bare.decode(data) if channel == CONTROL else {}
            event = message.get("event", {})
            if event.get("event") == "entered":
                shown.close()
                say(f"{event['message']}\n\nThis is its filesystem, with its environment and mounts: {event['shell']}")
                say("Nothing that is done here is kept; `exit` ends the build.")
                join(stream, on_event=shown.feed)
            elif event:
                shown.feed(event)
            elif "error" in message:
                raise to_error(message["error"])
            elif "result" in message:
                return message["result"]
    finally:
        shown.close()
        stream.close()
