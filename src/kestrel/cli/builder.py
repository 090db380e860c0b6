"""builder prune and builder logs: what the builder keeps, and what its builds said."""

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.base.units import print_size
from kestrel.cli.console import print_json, say, table
from kestrel.cli.remote import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kestrel.cli.options import Parsed


def builder(parsed: "Parsed") -> int:
    """`kestrel builder prune` and `builder logs`."""
    match parsed.words:
        case ["prune"]:
            return _prune(parsed)
        case ["logs"]:
            return _list_logs(parsed)
        case ["logs", name]:
            return _print_log(name)
    words = " ".join(parsed.words)
    close = nearest(parsed.words[0], ("prune", "logs")) if parsed.words else None
    hint = f"did you mean {close}?" if close else "there are prune and logs [BUILD]"
    raise InvalidArgument(f"unknown command `kestrel builder {words}`", hint=hint)


def _prune(parsed: "Parsed") -> int:
    body = {
        "unused_for": parsed.unused_for or "",
        "keep": parsed.keep or "",
        "all": parsed.all,
        "dry_run": parsed.dry_run,
    }
    answer = call("builder-prune", body)
    if parsed.json:
        print_json(answer)
        return 0
    goes = "would go" if parsed.dry_run else "gone"
    rows = [
        (
            goes if each["removed"] else "stays",
            each["kind"],
            print_size(each["size"]),
            " ".join(each["name"].split())[:60],
            each["reason"],
        )
        for each in answer["judged"]
    ]
    if rows:
        print(table(("", "KIND", "SIZE", "WHAT", "WHY"), rows))
    say(f"{'would free' if parsed.dry_run else 'freed'} {print_size(answer['freed'])}")
    return 0


def _list_logs(parsed: "Parsed") -> int:
    found = call("builder-logs", {})
    if parsed.json:
        print_json(found)
    else:
        print(table(("BUILD", "SIZE", "ENDED"), [(e["name"], print_size(e["size"]), e["how"]) for e in found]))
    return 0


def _print_log(name: str) -> int:
    with open(call("builder-log", {"name": name})["path"], encoding="utf-8", errors="replace") as file:
        for line in file:
            print(line, end="")
    return 0
