"""build --check, --outline and --targets: words for what the builder says of a Dockerfile."""

import os

from kestrel.base.errors import InvalidArgument
from kestrel.base.units import print_size
from kestrel.cli.console import print_json, say, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


def show(answer: "Any", ask: str, parsed: "Parsed") -> int:
    """Print an answer; a check ends with 1 when something was found."""
    if parsed.json:
        print_json(answer)
    elif ask == "targets":
        rows = [(t["name"] + (" (default)" if t["default"] else ""), t["base"], t["description"]) for t in answer]
        print(table(("TARGET", "FROM", "DESCRIPTION"), rows))
    elif ask == "outline":
        _outline(answer)
    elif ask == "context_report":
        _report(answer)
    else:
        path = parsed.file or os.path.join(parsed.words[0], "Dockerfile")
        if ask == "fix":
            _write(answer, path)
        _findings(answer, path)
    return int(ask in ("check", "fix") and bool(answer["findings"] or answer["error"]))


def _outline(answer: "dict[str, Any]") -> None:
    print(f"target {answer['target']}" + (f": {answer['description']}" if answer["description"] else ""))
    rows = [(a["name"], "" if a["value"] is None else a["value"], a["description"]) for a in answer["arguments"]]
    if rows:
        print(table(("ARGUMENT", "VALUE", "DESCRIPTION"), rows))
    for kind in ("secrets", "ssh", "caches"):
        if answer[kind]:
            names = (each["name"] + (" (required)" if each["required"] else "") for each in answer[kind])
            print(f"{kind}: {', '.join(names)}")


def _report(answer: "dict[str, Any]") -> None:
    hides = answer["ignore_file"] or "no ignore file"
    for name, words in (("context", "may be read"), ("used", "are read"), ("hidden", f"are hidden ({hides})")):
        part = answer[name]
        print(f"{_files(part)}  {words}")
    _section("read by", [(f"{r['step']} {r['title']}", r, r["missing"]) for r in answer["reads"]])
    _section("largest files that are read", [(p["path"], p, "") for p in answer["largest"]])
    _section("no step reads", [(p["path"], p, "") for p in answer["unused"]])
    _section("lines for .dockerignore, and what they save", [(p["path"], p, p["about"]) for p in answer["suggested"]])


def _section(title: str, rows: "list[tuple[str, dict[str, Any], str]]") -> None:
    if rows:
        print(f"\n{title}:")
        for path, part, about in rows:
            print(f"{_files(part)}  {path}" + (f"  ({about})" if about else ""))


def _files(part: "dict[str, Any]") -> str:
    return f"{part['files']:>8} {'file ' if part['files'] == 1 else 'files'} {print_size(part['size']):>8}"


def _findings(answer: "dict[str, Any]", path: str) -> None:
    name = _name(path)
    for found in answer["findings"]:
        print(f"{name}:{found['line']}: {found['rule']}: {found['detail']}")
        if found["fix"]:
            print("".join(f"    + {line}\n" for line in found["fix"].split("\n")), end="")
        elif found["advice"]:
            print(f"    {found['advice']}")
    if answer["error"]:
        print(f"error: {answer['error']}")
    count = len(answer["findings"])
    certain = sum(bool(found["fix"]) for found in answer["findings"])
    say(f"{count} found, {certain} with a certain fix (--fix writes them)" if count else "nothing found")


def _name(path: str) -> str:
    return "Dockerfile" if path == "-" else os.path.basename(path)


def _write(answer: "dict[str, Any]", path: str) -> None:
    from kestrel.base.files import replace

    for found in answer["fixes"]:
        print(f"fixed {_name(path)}:{found['line']}: {found['rule']}: {found['detail']}")
    if not answer["fixes"]:
        return
    if path == "-":
        print(answer["text"], end="")
        return
    try:
        replace(path, answer["text"].encode("utf-8", "surrogateescape"), mode=os.stat(path).st_mode & 0o777)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgument(
            f"cannot write {path}: {reason}", hint="a Dockerfile that is elsewhere is not mended"
        ) from None
