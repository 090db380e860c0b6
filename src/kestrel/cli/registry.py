"""registry: accounts, keys, grants, tags and collections of this node's registry."""

import os
import sys
import time

from kestrel.base.errors import InvalidArgument
from kestrel.base.units import print_duration, print_size
from kestrel.cli.console import print_json, say, table
from kestrel.cli.remote import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed

_WITH_PASSWORD = (["user", "add"], ["user", "password"])
_COLUMNS = {
    "user list": ("name", "kind", "grants"),
    "robot list": ("name", "kind", "grants"),
    "key list": ("id", "account", "kind", "label", "created", "expires"),
    "grant list": ("account", "pattern", "actions"),
    "upstream list": ("prefix", "registry", "default"),
    "history": ("tag", "digest", "moment", "actor"),
    "deleted": ("repository", "digest", "tags", "moment"),
}


def registry(parsed: "Parsed") -> int:
    """`kestrel registry`."""
    words = parsed.words
    request = {
        "words": words,
        "grants": parsed.grant,
        "label": parsed.label or "",
        "days": parsed.days or 0,
        "dry_run": parsed.dry_run,
        "untagged": parsed.untagged,
        "default": parsed.default,
        "password": _password(words[2:3]) if words[:2] in _WITH_PASSWORD else "",
    }
    show = None if parsed.json else _print_verdicts
    answer = call("registry", request, show)
    if parsed.json:
        print_json(answer)
    else:
        _print(words, answer)
    return int(words[0] == "why" and not answer["allowed"])


def _password(name: "list[str]") -> str:
    """Read a password from the terminal, twice, or the first line of stdin."""
    if not name:
        raise InvalidArgument("no account is named", hint="write `kestrel registry user add NAME`")
    if not os.isatty(0):
        return sys.stdin.readline().rstrip("\r\n")
    import getpass

    first = getpass.getpass(f"password for {name[0]}: ")
    if getpass.getpass("once more: ") != first:
        raise InvalidArgument("the two passwords differ")
    return first


def _print_verdicts(event: "dict[str, Any]") -> None:
    for digest, size, removed, reason in event["verdicts"]:
        print(f"{'free' if removed else 'keep'}  {digest}  {print_size(size):>9}  {reason}")


def _print(words: "list[str]", answer: "Any") -> None:
    verb = " ".join(words[:2]) if words[0] in ("user", "robot", "key", "grant", "immutable", "upstream") else words[0]
    if verb == "gc":
        _print_collection(answer)
    elif verb == "immutable list":
        print("\n".join(answer))
    elif verb == "why":
        print("yes" if answer["allowed"] else "no")
        for line in answer["because"]:
            say(line)
    elif verb in _COLUMNS:
        columns = _COLUMNS[verb]
        rows = [[_word(column, row[column]) for column in columns] for row in answer]
        print(table([column.upper() for column in columns], rows))
    elif "key" in answer:
        say(f"key of {answer.get('name') or answer['account']}; it is shown only now, and stands in for the password:")
        print(answer["key"])
    elif verb == "user add" and not answer["grants"]:
        say(f"{answer['name']} may do nothing yet: `kestrel registry grant add {answer['name']} '**' pull,push`")
    elif "digest" in answer:
        print(answer["digest"])


def _print_collection(answer: "dict[str, Any]") -> None:
    would = "would remove" if answer["dry_run"] else "removed"
    if answer["untagged"]:
        say(f"{would} {answer['untagged']} manifests without a tag; they can be restored for a while")
    took = print_duration(answer["seconds"])
    say(f"{would} {answer['removed']} blobs, {print_size(answer['freed'])}; kept {answer['kept']}; {took}")


def _word(column: str, value: "Any") -> str:
    if column in ("created", "expires", "moment"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if value else "-"
    if isinstance(value, list):
        return " ".join(value) or "-"
    return str(value or "-")
