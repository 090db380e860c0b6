"""build: send the request, show the steps, print the image."""

import os
import sys

from kestrel.base.errors import InvalidArgument
from kestrel.cli.console import print_json
from kestrel.cli.remote import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


def build(parsed: "Parsed") -> int:
    """`kestrel build`."""
    context = os.path.abspath(parsed.words[0])
    if not os.path.isdir(context):
        raise InvalidArgument(f"the context {parsed.words[0]} is not a directory", hint="usually it is `.`")
    request = {
        "context": context,
        "dockerfile": os.path.abspath(parsed.file) if parsed.file else "",
        "tags": parsed.tag,
        "build_args": [_argument(text) for text in parsed.build_arg],
        "target": parsed.target or "",
        "no_cache": parsed.no_cache,
        "pull": parsed.pull,
        "network": parsed.network or "",
        "secrets": parsed.secret,
    }
    for ask in ("check", "outline", "targets"):
        if getattr(parsed, ask):
            from kestrel.cli import check

            return check.show(call("build-check", {**request, "ask": ask}), ask, parsed)
    result = call("build", request) if parsed.quiet or parsed.json else show_steps(request)
    if parsed.json:
        print_json(result)
    else:
        print(result["image_id"])
    return 0


def show_steps(request: "dict[str, Any]") -> "Any":
    """Build and show the steps on stderr as they go: live on a terminal, plain lines otherwise."""
    from kestrel.build import progress

    live = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    printer: Any
    if live:
        printer = progress.Live(_write, columns=os.get_terminal_size(2).columns)
    else:
        printer = progress.Plain(_write)
    try:
        return call("build", request, printer.feed)
    finally:
        printer.close()


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _argument(text: str) -> str:
    """Fill in `NAME` without a value from our own environment, as docker does."""
    if "=" in text:
        return text
    if text not in os.environ:
        raise InvalidArgument(f"build argument {text} has no value", hint=f"write {text}=VALUE, or set it here")
    return f"{text}={os.environ[text]}"
