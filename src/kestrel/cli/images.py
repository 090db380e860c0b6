"""images, image bootstrap, pull, push, tag, rmi, prune."""

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.base.units import print_size
from kestrel.cli.console import Progress, ago, print_json, say, table
from kestrel.cli.remote import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


def images(parsed: "Parsed") -> int:
    """`kestrel images`."""
    found = call("images", {"name": parsed.words[0] if parsed.words else ""})
    if parsed.json:
        print_json(found)
    elif parsed.quiet:
        for image in found:
            print(_short(image["id"]))
    else:
        rows = [row for image in found for row in _rows(image)]
        print(table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), rows))
    return 0


def _rows(image: "dict[str, Any]") -> "list[tuple[str, ...]]":
    from kestrel.cli.show import _age

    when = ago(_age(image["created"])) if image["created"] else "unknown"
    rest = (_short(image["id"]), when, print_size(image["size"]))
    if not image["names"]:
        return [("<none>", "<none>", *rest)]
    split = (name.rpartition(":") if "/" not in name.rpartition(":")[2] else (name, "", "") for name in image["names"])
    return [(repository or tag, tag if repository else "<none>", *rest) for repository, _, tag in split]


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def image(parsed: "Parsed") -> int:
    """`kestrel image bootstrap`, `image layers`, `image scan` and `image diff`."""
    verb, *rest = parsed.words
    if verb == "diff" and len(rest) == 2:
        from kestrel.cli import contents

        return contents.difference(call("diff", {"old": rest[0], "new": rest[1]}), parsed)
    if verb in ("layers", "scan") and len(rest) == 1:
        from kestrel.cli import contents

        return contents.show(verb, call("contents", {"name": rest[0]}), parsed)
    if verb != "bootstrap":
        close = nearest(verb, ["bootstrap", "layers", "scan", "diff"])
        hint = (
            f"did you mean `kestrel image {close}`?"
            if close
            else "there are bootstrap, layers NAME, scan NAME and diff OLD NEW"
        )
        raise InvalidArgument(f"unknown command `kestrel image {' '.join(parsed.words)}`", hint=hint)
    packages = [name for text in parsed.include for name in text.split(",") if name]
    body = {"name": rest[0] if rest else "", "variant": parsed.variant or "", "include": packages}
    made = call("bootstrap", body, Progress(quiet=parsed.json))
    if parsed.json:
        print_json(made)
    else:
        say(f"made {', '.join(made['names'])} ({print_size(made['size'])}) out of {made['packages']} Debian packages")
        print(made["id"])
    return 0


def pull(parsed: "Parsed") -> int:
    """`kestrel pull`."""
    fetched = call("pull", {"name": parsed.words[0]}, Progress(quiet=parsed.quiet or parsed.json))
    if parsed.json:
        print_json(fetched)
    else:
        print(fetched["digest"])
    return 0


def push(parsed: "Parsed") -> int:
    """`kestrel push`."""
    sent = call("push", {"name": parsed.words[0]}, Progress(quiet=parsed.quiet or parsed.json))
    if parsed.json:
        print_json(sent)
    else:
        print(sent["digest"])
    return 0


def copy(parsed: "Parsed") -> int:
    """`kestrel copy`."""
    source, target = parsed.words
    body = {"source": source, "target": target, "platform": parsed.platform or "", "referrers": parsed.referrers}
    copied = call("copy", body, Progress(quiet=parsed.quiet or parsed.json))
    print_json(copied) if parsed.json else print(copied["digest"])
    return 0


def tag(parsed: "Parsed") -> int:
    """`kestrel tag`."""
    source, target = parsed.words
    call("tag", {"source": source, "target": target})
    return 0


def rmi(parsed: "Parsed") -> int:
    """`kestrel rmi`."""
    for removed in call("rmi", {"names": parsed.words, "force": parsed.force}):
        for name in removed["untagged"]:
            print(f"Untagged: {name}")
        for digest in removed["deleted"]:
            print(f"Deleted: {digest}")
    return 0


def prune(parsed: "Parsed") -> int:
    """`kestrel prune`."""
    removed = call("prune", {"all": parsed.all})
    if parsed.json:
        print_json(removed)
    else:
        for line in removed["removed"]:
            print(line)
        say(f"freed {print_size(removed['bytes'])}")
    return 0
