"""Command lines, read without argparse: it alone would take as long as a container takes to start.

The form is that of Go's flag package, which callers of runc write: `--name value`, `--name=value`, one dash or two
alike, a switch may say `=false`, `--` ends the options.
"""

from kestrel.base.errors import InvalidArgument

TYPE_CHECKING = False  # what only checkers need would cost more than reading the words
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Value = str | bool | int | list[str]


class Options:
    """The options of a command: values by long name, and the words that are left."""

    def __init__(self, values: dict[str, Value], words: list[str]) -> None:
        self.values = values
        self.words = words

    def text(self, name: str) -> str:
        """Return an option's text, empty when it was not given."""
        value = self.values.get(name, "")
        return value if isinstance(value, str) else ""

    def on(self, name: str) -> bool:
        """Say whether a switch is on."""
        return self.values.get(name) is True

    def number(self, name: str, default: int = 0) -> int:
        """Return an option's number."""
        value = self.values.get(name, default)
        return value if isinstance(value, int) else default

    def all(self, name: str) -> list[str]:
        """Return every value of an option that may be given several times."""
        value = self.values.get(name, [])
        return value if isinstance(value, list) else []


def parse(words: "Sequence[str]", known: "Mapping[str, str]", *, mixed: bool = False) -> Options:
    """Read options. `known` maps `name` or `name,n` to `switch`, `text`, `number` or `list`.

    With `mixed`, options may stand behind words as well. Raises InvalidArgument.
    """
    names = {alias: (full.split(",")[0], kind) for full, kind in known.items() for alias in full.split(",")}
    values: dict[str, Value] = {}
    left: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            return Options(values, [*left, *words[at:]])
        if not word.startswith("-") or word == "-":
            left.append(word)
            if not mixed:
                return Options(values, [*left, *words[at:]])
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name not in names:
            raise InvalidArgument(f"flag provided but not defined: -{name}")
        full, kind = names[name]
        if kind == "switch":
            values[full] = value.lower() not in ("false", "0", "f") if equals else True
            continue
        if not equals:
            if at >= len(words):
                raise InvalidArgument(f"flag needs an argument: -{name}")
            value = words[at]
            at += 1
        _take(values, full, kind, value)
    return Options(values, left)


def _take(values: dict[str, Value], name: str, kind: str, value: str) -> None:
    if kind == "list":
        found = values.setdefault(name, [])
        assert isinstance(found, list)
        found.append(value)
    elif kind == "number":
        try:
            values[name] = int(value)
        except ValueError:
            raise InvalidArgument(f"invalid value {value!r} for flag -{name}: it is not a number") from None
    else:
        values[name] = value
