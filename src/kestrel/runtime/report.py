"""What the command says: its output, and besides it records, as runc's callers read them.

    time="2026-01-02T15:04:05Z" level=error msg="container does not exist: a" hint="..."

They go to standard error; with `--log` to that file, as JSON with `--log-format json`, and people are still told of
errors. Records of level "debug" are written with `--debug` only: they tell a container's plan as it is carried out.
"""

import os
import time

from kestrel.base.errors import InvalidArgument, Unavailable

_path, _json, _debug = "", False, False


def configure(path: str, form: str, *, debug: bool) -> None:
    """Say where records go, and in which form (`text` or `json`). Raises OSError for a log that cannot be written."""
    global _path, _json, _debug
    if form not in ("", "text", "json"):
        raise InvalidArgument(f"invalid log-format: {form}", hint="text or json")
    if path:
        os.close(_open(path))  # not kept: a descriptor that was to be preserved could be taken for it
    _path, _json, _debug = path, form == "json", debug


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def output(text: str) -> None:
    """Print what a command was called for. Raises Unavailable when it cannot be written."""
    rest = os.fsencode(text)
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except BrokenPipeError:
        raise SystemExit(128 + 13) from None  # as SIGPIPE ends it, which Python ignores: nobody reads any more
    except OSError as problem:
        raise Unavailable(f"the output cannot be written: {problem.strerror}") from problem


def error(message: str, hint: "str | None" = None) -> None:
    """Tell why the command fails."""
    _record("error", message, hint)
    if _path:
        _say(f"{message}\n" + (f"hint: {hint}\n" if hint else ""))


def warnings(messages: "tuple[str, ...] | list[str]") -> None:
    """Tell what was not done, although the command succeeds."""
    for message in messages:
        _record("warning", message)


def debugging() -> bool:
    """Say whether debug records are wanted."""
    return _debug


def debug(message: str) -> None:
    """Tell what is being done."""
    if _debug:
        _record("debug", message)


def _record(level: str, message: str, hint: "str | None" = None) -> None:
    global _path
    members = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "msg": message}
    members |= {"hint": hint} if hint else {}
    if _json:
        from kestrel.base import plainjson

        text = plainjson.dumps(members) + "\n"
    else:
        text = " ".join(f"{name}={_word(value)}" for name, value in members.items()) + "\n"
    try:
        _write(text)
    except OSError as problem:
        _say(f"the log {_path} cannot be written: {problem.strerror}\n{text}")
        _path = ""  # what follows is said where this was


def _write(text: str) -> None:
    if not _path:
        return _say(text)
    fd = _open(_path)
    try:
        os.write(fd, os.fsencode(text))
    finally:
        os.close(fd)


def _say(text: str) -> None:
    try:
        os.write(2, os.fsencode(text))
    except OSError:
        pass  # what cannot be said must not change what is done


def _word(text: str) -> str:
    if text.isalnum():
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
