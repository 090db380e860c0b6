"""image layers, scan and diff: what instructions added and wasted, keys that were left, what sets two images apart."""

from kestrel.base.units import print_size
from kestrel.cli.console import print_json, say, table

_MARKS = {"added": "+", "removed": "-", "changed": "~"}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


def show(verb: str, answer: "dict[str, Any]", parsed: "Parsed") -> int:
    """Print an answer; a scan ends with 1 when there are keys."""
    if parsed.json:
        print_json(answer["keys"] if verb == "scan" else answer)
    elif verb == "scan":
        _keys(answer["keys"])
    else:
        _layers(answer)
    return int(verb == "scan" and bool(answer["keys"]))


def difference(answer: "dict[str, Any]", parsed: "Parsed") -> int:
    """Print what sets two images apart; ends with 1 when anything does, as diff(1)."""
    if parsed.json:
        print_json(answer)
    else:
        for line in answer["configuration"]:
            print(line)
        for change in answer["files"]:
            how = f"  ({', '.join(change['how'])})" if change["how"] else ""
            print(f"{_MARKS[change['what']]} {change['path']}{how}")
        grown = sum(change["size"] for change in answer["files"])
        say(f"{len(answer['files'])} files differ; {'-' if grown < 0 else '+'}{print_size(abs(grown))}")
    return int(bool(answer["files"] or answer["configuration"]))


def _keys(keys: "list[dict[str, Any]]") -> None:
    for key in keys:
        line = f":{key['line']}" if key["line"] else ""
        removed = " (removed by a later layer, and still in the image)" if key["removed"] else ""
        print(f"{key['what']} in {key['where']}{line}{removed}")
        if key["created_by"]:
            print(f"    added by {_short(key['created_by'])}")
    say(f"{len(keys)} found; whoever has the image has them: revoke them" if keys else "nothing found")


def _layers(answer: "dict[str, Any]") -> None:
    rows = [
        (
            print_size(layer["size"]),
            print_size(layer["wasted"]) if layer["wasted"] else "-",
            _short(layer["created_by"]),
        )
        for layer in answer["layers"]
    ]
    print(table(("ADDED", "WASTED", "INSTRUCTION"), rows))
    for layer in answer["layers"]:
        for waste in layer["waste"]:
            print(_short(layer["created_by"]))
            print(
                f"    {waste['why']}: {waste['count']} file{'s' * (waste['count'] != 1)}, {print_size(waste['size'])}"
            )
            print(f"    {', '.join('/' + path for path in waste['largest'][:3])}\n    remedy: {waste['remedy']}")
    share = 100 * answer["wasted"] / answer["size"] if answer["size"] else 0.0
    say(f"{print_size(answer['size'])} in all, {print_size(answer['wasted'])} wasted ({share:.1f} %)")


def _short(text: str) -> str:
    line = " ".join(text.split()) or "(not told)"
    return line if len(line) <= 90 else line[:89] + "…"
