"""save, load, export, import, commit: images and files of containers as tars, through stdin and stdout or a file."""

import os
import sys

from kestrel.base.errors import FailedPrecondition, NotFound, PermissionDenied
from kestrel.cli.console import print_json
from kestrel.cli.remote import Stream, call
from kestrel.cli.terminal import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


def save(parsed: "Parsed") -> int:
    """`kestrel save`."""
    return _to_file("save", {"names": parsed.words}, parsed.output)


def export(parsed: "Parsed") -> int:
    """`kestrel export`."""
    return _to_file("export", {"name": parsed.words[0]}, parsed.output)


def load(parsed: "Parsed") -> int:
    """`kestrel load`."""
    return _from_file("load", {}, parsed.input or "-", parsed)


def import_(parsed: "Parsed") -> int:
    """`kestrel import`."""
    file, *name = parsed.words
    return _from_file("import", {"name": name[0] if name else ""}, file, parsed)


def commit(parsed: "Parsed") -> int:
    """`kestrel commit`."""
    container, *names = parsed.words
    body = {"name": container, "names": names, "author": parsed.author or "", "message": parsed.message or ""}
    made = call("commit", body)
    print_json(made) if parsed.json else print(made["id"])
    return 0


def _to_file(verb: str, body: "dict[str, Any]", path: "str | None") -> int:
    """Have the daemon's bytes written to stdout, or to a file that appears when it is whole."""
    if path is None:
        if sys.stdout.isatty():
            raise FailedPrecondition("a tar cannot be shown on a terminal", hint="name a file with -o, or use a pipe")
        return attach(Stream(verb, body), stdin=False, tty=False, interrupt=True)
    directory, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(directory, f".{name}.{os.getpid()}")
    _put(1, _opened(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        code = attach(Stream(verb, body), stdin=False, tty=False, interrupt=True)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    return code


def _from_file(verb: str, body: "dict[str, Any]", path: str, parsed: "Parsed") -> int:
    if path != "-":
        _put(0, _opened(path, os.O_RDONLY))
    elif sys.stdin.isatty():
        raise FailedPrecondition("a tar cannot be typed", hint="name a file, or use a pipe")

    def show(event: "dict[str, Any]") -> None:
        images = event["images"]
        if parsed.json:
            print_json(images)
            return
        for image in images:
            print("\n".join(image["names"] or [image["id"]]))

    return attach(Stream(verb, body), stdin=True, tty=False, on_event=show, interrupt=True)


def _opened(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        raise NotFound(f"no such file or directory: {path}") from None
    except PermissionError:
        raise PermissionDenied(f"{path} may not be opened") from None


def _put(standard: int, descriptor: int) -> None:
    os.dup2(descriptor, standard)
    os.close(descriptor)
