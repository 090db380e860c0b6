"""The parts of Go's library, and of the test libraries beside it, that the suites' tests call.

Each package is a table of names. Effects are real: files are written, archives packed, commands run, pages served
on the loopback address.
"""

import secrets
from collections.abc import Callable
from typing import Any

from builder_judges.go.library.clock import HTTP_FORMAT, time
from builder_judges.go.library.data import GzipWriter, digest, io, json, tar
from builder_judges.go.library.files import NOT_EXIST, filepath, os, syscall
from builder_judges.go.library.network import Echo, Server, exec_
from builder_judges.go.library.testify import require
from builder_judges.go.library.text import bytes_, errors, fmt, strconv, strings
from builder_judges.go.values import Error, Package, Unsupported, same


def _served(handler: Any) -> Server:
    if not isinstance(handler, str):
        raise Unsupported("a web server with a handler of the test's own")
    return Server(directory=handler)


def _cancelled() -> tuple[None, Callable[..., None]]:
    return None, lambda *_: None


def _sorted(values: list[Any]) -> None:
    values.sort()


PACKAGES: dict[str, Package] = {
    "errors": errors,
    "fmt": fmt,
    "strings": strings,
    "bytes": bytes_,
    "strconv": strconv,
    "require": require,
    "assert": require,
    "os": os,
    "syscall": syscall,
    "filepath": filepath,
    "path": filepath,
    "time": time,
    "json": json,
    "digest": digest,
    "go-digest": digest,
    "tar": tar,
    "io": io,
    "exec": exec_,
    "gzip": Package("gzip", {"NewWriter": GzipWriter}),
    "runtime": Package("runtime", {"GOOS": "linux", "GOARCH": "amd64"}),
    "identity": Package("identity", {"NewID": lambda: secrets.token_hex(12)}),
    "context": Package(
        "context",
        {
            "TODO": lambda: None,
            "Background": lambda: None,
            "WithTimeout": lambda *_: _cancelled(),
            "WithCancel": lambda *_: _cancelled(),
            "WithCancelCause": lambda *_: _cancelled(),
            "WithTimeoutCause": lambda *_: _cancelled(),
            "DeadlineExceeded": Error("deadline exceeded"),
            "Canceled": Error("canceled"),
        },
    ),
    "httpserver": Package("httpserver", {"NewTestServer": Server}),
    "httptest": Package("httptest", {"NewServer": _served}),
    "http": Package("http", {"FileServer": lambda where: where, "Dir": lambda path: path, "TimeFormat": HTTP_FORMAT}),
    "slices": Package(
        "slices",
        {
            "Contains": lambda v, e: any(same(x, e) for x in v or ()),
            "Sort": _sorted,
            "Sorted": sorted,
            "Concat": lambda *p: [e for part in p for e in part or ()],
        },
    ),
    "sort": Package("sort", {"Strings": _sorted}),
    "maps": Package("maps", {"Clone": lambda v: dict(v or {}), "Keys": list, "Copy": lambda a, b: a.update(b)}),
    "fs": Package("fs", {"ModePerm": 0o777, "ErrNotExist": NOT_EXIST}),
    "echoserver": Package("echoserver", {"NewTestServer": lambda answer: (Echo(answer), None)}),
    "math": Package("math", {"MaxInt64": (1 << 63) - 1}),
}
