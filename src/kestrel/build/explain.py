"""Why a step ran: the difference between its key and the nearest earlier one, said in a few words.

1 file changed (app.py)        ARG VERSION: 1.2 -> 1.3        the step before it changed
"""

from collections.abc import Callable, Iterable
from typing import Any

Listing = Callable[[str], bytes | None]
FIELD, RECORD = b"\0", b"\0\0"

_SHOWN = 3
_WORDS = {
    "cwd": "working directory",
    "user": "user",
    "network": "network",
    "hostname": "hostname",
    "destination": "destination",
    "chown": "--chown",
    "chmod": "--chmod",
    "link": "--link",
    "script": "script",
    "epoch": "time that files are clamped to",
    "path": "path",
}


def explain(now: dict[str, Any], before: dict[str, Any] | None, listing: Listing) -> str:
    """Return the reason why `now` has no record, given the inputs of what stood there last (None: nothing did)."""
    if before is None:
        return "first build of this step"
    if before.get("op") != now.get("op"):
        return "the instruction changed"
    reasons = [
        *_commands(now, before),
        *_environment(now.get("env", {}), before.get("env", {})),
        *_files(now.get("sources", []), before.get("sources", []), listing),
        *_files(now.get("mounts", []), before.get("mounts", []), listing, what="mounts"),
        *(
            f"the {word} changed ({before.get(name) or 'none'} -> {now.get(name) or 'none'})"
            for name, word in _WORDS.items()
            if now.get(name) != before.get(name) and name != "script"
        ),
    ]
    if now.get("script") != before.get("script"):
        reasons.append("the script changed")
    if now.get("hosts") != before.get("hosts"):
        reasons.append("the names of --add-host changed")
    if now.get("parent") != before.get("parent"):
        reasons.append("the step before it changed" if not now.get("first") else "the base image changed")
    return "; ".join(reasons) or "its record was removed"


def _commands(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    return ["the command changed"] if now.get("argv") != before.get("argv") else []


def _environment(now: dict[str, str], before: dict[str, str]) -> list[str]:
    reasons = [
        f"{name}: {_short(before[name])} -> {_short(value)}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    reasons += [f"{name} is new" for name in now if name not in before]
    return reasons + [f"{name} is gone" for name in before if name not in now]


def _short(value: str) -> str:
    return value if len(value) <= 40 else value[:37] + "..."


def _files(
    now: list[dict[str, Any]], before: list[dict[str, Any]], listing: Listing, *, what: str = "sources"
) -> list[str]:
    if [_without_digest(each) for each in now] != [_without_digest(each) for each in before]:
        return [f"the {what} are named differently"]
    reasons = []
    for new, old in zip(now, before, strict=True):
        if new.get("digest") != old.get("digest"):
            reasons.append(_difference(listing(new.get("digest", "")), listing(old.get("digest", ""))))
    return reasons


def _without_digest(source: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in source.items() if name != "digest"}


def _difference(now: bytes | None, before: bytes | None) -> str:
    """Compare two listings: which files are new, gone, of other content, of another mode or owner."""
    if now is None or before is None:
        return "the files changed"
    lines, earlier = now.split(RECORD), before.split(RECORD)
    new, old = _parse(set(lines).difference(earlier)), _parse(set(earlier).difference(lines))
    changed = [path for path in new if path in old and new[path][1:] != old[path][1:]]
    modes = [path for path in new if path in old and new[path] != old[path] and new[path][1:] == old[path][1:]]
    added = [path for path in new if path not in old]
    removed = [path for path in old if path not in new]
    parts = [
        _count(changed, "changed"),
        _count(modes, "with another mode or owner"),
        _count(added, "added"),
        _count(removed, "removed"),
    ]
    return ", ".join(part for part in parts if part) or "the files changed"


def _parse(records: Iterable[bytes]) -> dict[str, tuple[bytes, ...]]:
    """Read the records that only one side has, in the order of their paths."""
    found = {}
    for record in sorted(records):
        path, *rest = record.split(FIELD)
        found[path.decode("utf-8", "surrogateescape")] = tuple(rest)
    return found


def _count(paths: list[str], word: str) -> str:
    if not paths:
        return ""
    shown = ", ".join(path or "." for path in paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{len(paths)} file{'s' if len(paths) != 1 else ''} {word} ({shown}{more})"
