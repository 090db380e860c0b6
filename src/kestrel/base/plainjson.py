"""JSON without the standard library's module around its C parts, which loads the regular expressions: 7 ms.

A command that answers in 10 ms cannot afford them. The values and the errors are the same.
"""

from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False  # typing is as slow to load
if TYPE_CHECKING:
    from typing import Any

SPACE = " \t\n\r"


class _Rules:
    """What the C scanner asks of a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")


def loads(text: str) -> "Any":
    """Return the value of a text. Raises ValueError."""
    scan = make_scanner(_Rules())  # type: ignore[arg-type] # it asks for these members, whatever the class
    try:
        value, end = scan(text, len(text) - len(text.lstrip(SPACE)))
    except StopIteration as stop:
        raise ValueError(f"a value is expected at character {stop.value}") from None
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except SystemError:  # the scanner wants the standard module's error, which is not there
        raise _explained(text) from None
    if text[end:].strip(SPACE):
        raise ValueError(f"the text goes on behind its value, at character {end}")
    return value


def _explained(text: str) -> ValueError:
    import json

    try:
        json.loads(text)
    except ValueError as error:
        return error
    return ValueError("it cannot be read")


def _unknown(value: object) -> str:
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def dumps(value: object, *, sort_keys: bool = False) -> str:
    """Return a value as one line, without blanks: scripts compare it."""
    encode = make_encoder({}, _unknown, encode_basestring_ascii, None, ":", ",", sort_keys, False, False)
    return "".join(encode(value, 0))


def pretty(value: object, indent: str = "") -> str:
    """Return a value as a text for people, members on lines of their own."""
    further = indent + "  "
    if isinstance(value, dict) and value:
        lines = (f"{further}{dumps(str(name))}: {pretty(item, further)}" for name, item in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"{further}{pretty(item, further)}" for item in value) + f"\n{indent}]"
    return dumps(value)
