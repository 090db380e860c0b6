"""The command line's grammar: a command is a row of data, and help, parsing and suggestions come from it.

Written by hand because argparse costs 7 ms at every start and cannot say "everything after IMAGE belongs to the
container", which is how people type `run` and `exec`.
"""

from kestrel.base.errors import InvalidArgument, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Option:
    """One flag. `kind` is `flag` (no value), `value` (the last one wins), `list` (repeatable) or `number`."""

    __slots__ = ("about", "default", "kind", "metavar", "names")

    def __init__(self, names: str, about: str, *, kind: str = "flag", metavar: str = "", default: "Any" = None) -> None:
        self.names = tuple(names.split())
        self.about = about
        self.kind = kind
        self.metavar = metavar
        self.default = False if kind == "flag" else default

    @property
    def key(self) -> str:
        """The name under which the parsed value is found: the long form, dashes as underscores."""
        return self.names[-1].lstrip("-").replace("-", "_")


class Command:
    """One verb: where its function is, and what it takes.

    `words` are the positional arguments as shown in help: `NAME`, `[NAME]`, `NAME...`, `[NAME...]`. With `rest` the
    options end at the first positional, as for `run IMAGE COMMAND --flag`.
    """

    __slots__ = ("function", "group", "name", "options", "rest", "summary", "words")

    def __init__(
        self,
        name: str,
        summary: str,
        function: str,
        *,
        group: str = "",
        words: str = "",
        options: "Sequence[Option]" = (),
        rest: bool = False,
    ) -> None:
        self.name = name
        self.summary = summary
        self.function = function
        self.group = group
        self.words = tuple(words.split())
        self.options = (*options, Option("-h --help", "show this help"))
        self.rest = rest


class Parsed:
    """What was typed: option values by key, and the positional words."""

    __slots__ = ("values", "words")

    def __init__(self, values: "dict[str, Any]", words: "list[str]") -> None:
        self.values = values
        self.words = words

    def __getattr__(self, key: str) -> "Any":
        try:
            return self.values[key]
        except KeyError:
            raise AttributeError(key) from None


def parse(command: Command, arguments: "Sequence[str]") -> Parsed:
    """Read the arguments of one command. Raises InvalidArgument with the nearest flag, or what is missing."""
    by_name = {name: option for option in command.options for name in option.names}
    values: dict[str, Any] = {o.key: [] if o.kind == "list" else o.default for o in command.options}
    words: list[str] = []
    queue = list(arguments)
    while queue:
        item = queue.pop(0)
        if item == "--":
            words += queue
            break
        if not item.startswith("-") or item == "-":
            words.append(item)
            if command.rest:
                words += queue
                break
            continue
        for name, value in _split(command, by_name, item):
            _take(by_name[name], name, value, queue, values)
    if not values["help"]:
        _check_words(command, words)
    return Parsed(values, words)


def _split(command: Command, by_name: "dict[str, Option]", item: str) -> "list[tuple[str, str | None]]":
    """Turn `--a=b`, `-a`, `-abc` and `-avalue` into (name, value or None) pairs."""
    if item.startswith("--"):
        name, equals, value = item.partition("=")
        if name not in by_name:
            raise _unknown(command, by_name, name)
        return [(name, value if equals else None)]
    pairs: list[tuple[str, str | None]] = []
    letters = item[1:]
    while letters:
        name, letters = "-" + letters[0], letters[1:]
        if name not in by_name:
            raise _unknown(command, by_name, name if len(item) == 2 else item)
        if by_name[name].kind != "flag" and letters:
            pairs.append((name, letters.removeprefix("=")))
            break
        pairs.append((name, None))
    return pairs


def _take(option: Option, name: str, value: "str | None", queue: "list[str]", values: "dict[str, Any]") -> None:
    if option.kind == "flag":
        if value not in (None, "true", "false"):
            raise InvalidArgument(f"{name} takes no value")
        values[option.key] = value != "false"
        return
    if value is None:
        if not queue:
            raise InvalidArgument(f"{name} needs a value", hint=f"write {name} {option.metavar or 'VALUE'}")
        value = queue.pop(0)
    if option.kind == "list":
        values[option.key].append(value)
    elif option.kind == "number":
        try:
            values[option.key] = float(value)
        except ValueError:
            raise InvalidArgument(f"{name} takes a number, not {value!r}") from None
    else:
        values[option.key] = value


def _unknown(command: Command, by_name: "dict[str, Option]", name: str) -> InvalidArgument:
    close = nearest(name, by_name)
    hint = f"did you mean {close}?" if close else f"see `kestrel {command.name} --help`"
    return InvalidArgument(f"unknown flag {name} for `kestrel {command.name}`", hint=hint)


def _check_words(command: Command, words: "list[str]") -> None:
    required = [w for w in command.words if not w.startswith("[")]
    many = any(w.rstrip("]").endswith("...") for w in command.words) or command.rest
    if len(words) < len(required):
        raise InvalidArgument(f"`kestrel {command.name}` needs {required[len(words)]}", hint=f"usage: {usage(command)}")
    if not many and len(words) > len(command.words):
        extra = words[len(command.words)]
        raise InvalidArgument(f"unexpected argument {extra!r}", hint=f"usage: {usage(command)}")


def usage(command: Command) -> str:
    """Return the one-line form: `kestrel run [OPTIONS] IMAGE [COMMAND...]`."""
    return " ".join(["kestrel", command.name, "[OPTIONS]", *command.words])


def help_text(command: Command) -> str:
    """Return the help page of one command."""
    rows = []
    for option in command.options:
        names = ", ".join(option.names)
        value = "" if option.kind == "flag" else " " + (option.metavar or "VALUE")
        rows.append((names + value, option.about))
    width = max(len(left) for left, _ in rows)
    lines = [f"usage: {usage(command)}", "", command.summary, "", "options:"]
    return "\n".join(lines + [f"  {left:<{width}}  {right}" for left, right in rows])
