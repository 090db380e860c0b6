"""run, exec, start, stop, kill, wait, rm."""

import os
import sys

from kestrel.base.errors import InvalidArgument
from kestrel.cli.remote import Stream, call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


def run(parsed: "Parsed") -> int:
    """`kestrel run`: the container's exit code is ours."""
    from kestrel.cli.terminal import attach

    _check_terminal(parsed)
    stream = Stream("run", asked(parsed))
    return attach(stream, stdin=parsed.interactive, tty=parsed.tty, on_event=_Events(detach=parsed.detach))


def asked(parsed: "Parsed") -> "dict[str, Any]":
    """Return what was typed as the request's fields."""
    image, *command = parsed.words
    body = {
        "image": image,
        "command": command or None,
        **{key: value for key, value in parsed.values.items() if key not in ("help", "env") and value is not None},
        "env": _environment(parsed.env),
    }
    body["cpus"] = body.get("cpus", 0.0)
    body["pids_limit"] = int(body.get("pids_limit", 0))
    return body


class _Events:
    """What is said before the process runs: a pull's progress on stderr, a detached container's id on stdout."""

    def __init__(self, *, detach: bool) -> None:
        self._detach = detach
        self._progress: Any = None

    def __call__(self, event: "dict[str, Any]") -> None:
        if "status" not in event:
            if self._detach:
                print(event["id"], flush=True)
            return
        if self._progress is None:
            from kestrel.cli.console import Progress

            self._progress = Progress()
        self._progress(event)


def exec_(parsed: "Parsed") -> int:
    """`kestrel exec`: the process's exit code is ours."""
    from kestrel.cli.terminal import attach

    name, *command = parsed.words
    _check_terminal(parsed)
    stream = Stream(
        "exec",
        {
            "name": name,
            "command": command,
            "interactive": parsed.interactive,
            "tty": parsed.tty,
            "detach": parsed.detach,
            "env": _environment(parsed.env),
            "user": parsed.user or "",
            "workdir": parsed.workdir or "",
            "privileged": parsed.privileged,
        },
    )
    return attach(stream, stdin=parsed.interactive, tty=parsed.tty)


def start(parsed: "Parsed") -> int:
    """`kestrel start`."""
    return _print_names(call("start", {"names": parsed.words}))


def stop(parsed: "Parsed") -> int:
    """`kestrel stop`."""
    return _print_names(call("stop", {"names": parsed.words, "time": parsed.time}))


def kill(parsed: "Parsed") -> int:
    """`kestrel kill`."""
    return _print_names(call("kill", {"names": parsed.words, "signal": parsed.signal}))


def wait(parsed: "Parsed") -> int:
    """`kestrel wait`."""
    return _print_names([str(code) for code in call("wait", {"names": parsed.words})])


def rm(parsed: "Parsed") -> int:
    """`kestrel rm`."""
    return _print_names(call("rm", {"names": parsed.words, "force": parsed.force}))


def _print_names(names: "list[str]") -> int:
    print("\n".join(names))
    return 0


def _environment(entries: "list[str]") -> "list[str]":
    """Fill in `NAME` without a value from our own environment, as docker does; unset names are left out."""
    return [
        entry if "=" in entry else f"{entry}={os.environ[entry]}"
        for entry in entries
        if "=" in entry or entry in os.environ
    ]


def _check_terminal(parsed: "Parsed") -> None:
    if parsed.tty and parsed.interactive and not parsed.detach and not sys.stdin.isatty():
        raise InvalidArgument("the input device is not a TTY", hint="leave out -t when stdin is a pipe or a file")
