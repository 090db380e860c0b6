"""ps, logs, inspect."""

from kestrel.cli.console import ago, print_json, table
from kestrel.cli.remote import Stream, call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


def ps(parsed: "Parsed") -> int:
    """`kestrel ps`."""
    found = call("ps", {"all": parsed.all})
    if parsed.json:
        print_json(found)
    elif parsed.quiet:
        for container in found:
            print(container["id"][:12])
    else:
        headings = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
        print(table(headings, [_row(container) for container in found]))
    return 0


def _row(container: "dict[str, Any]") -> "tuple[str, ...]":
    command = " ".join(container["command"])
    return (
        container["id"][:12],
        container["image"],
        f'"{command[:19]}…"' if len(command) > 20 else f'"{command}"',
        ago(_age(container["created"])),
        _status(container),
        ", ".join(container["ports"]),
        container["name"],
    )


def _status(container: "dict[str, Any]") -> str:
    if container["state"] == "running":
        return "Up " + ago(_age(container["started"])).removesuffix(" ago").replace("just now", "less than a second")
    if container["state"] == "exited":
        reason = f", {container['reason']}" if container["reason"] not in ("Completed", "Error", "") else ""
        return f"Exited ({container['exit_code']}{reason}) {ago(_age(container['finished']))}"
    return "Created"


def _age(stamp: str) -> float:
    """Seconds since an RFC 3339 time in UTC. `datetime` would cost the command 5 ms; two modules of C do it too."""
    import calendar
    import time

    return time.time() - calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))


def logs(parsed: "Parsed") -> int:
    """`kestrel logs`."""
    from kestrel.cli.terminal import attach

    body = {
        "name": parsed.words[0],
        "follow": parsed.follow,
        "tail": parsed.tail,
        "since": parsed.since or "",
        "timestamps": parsed.timestamps,
    }
    return attach(Stream("logs", body), stdin=False, tty=False, interrupt=True)


def inspect(parsed: "Parsed") -> int:
    """`kestrel inspect`."""
    print_json(call("inspect", {"names": parsed.words}))
    return 0


def explain(parsed: "Parsed") -> int:
    """`kestrel explain`: what `--json` prints is a list for one container, and by name for those of a pod."""
    from kestrel.cli.commands import COMMANDS
    from kestrel.cli.options import parse
    from kestrel.cli.run import asked

    json = parsed.values.pop("json")
    if parsed.words[1:] == ["--json"]:  # no program's name: people type it last
        parsed.words.pop()
        json = True
    bare = parse(next(command for command in COMMANDS if command.name == "explain"), parsed.words[:1])
    told = len(parsed.words) > 1 or any(bare.values[key] != value for key, value in parsed.values.items())
    found = call("explain", {**asked(parsed), "told": told})
    if json:
        print_json(next(iter(found.values())) if len(found) == 1 else found)
        return 0
    for name, lines in found.items():
        if len(found) > 1:
            print(f"\n{name}" if name != next(iter(found)) else name)
        _sentences(lines)
    return 0


def _sentences(lines: "list[dict[str, str]]") -> None:
    width = max(len(line["topic"]) for line in lines)
    before = ""
    for line in lines:
        print(f"{line['topic'] if line['topic'] != before else '':<{width}}  {line['text']}")
        before = line["topic"]
