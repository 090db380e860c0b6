"""Go's values in Python: strings, bytes, numbers, lists and dictionaries are themselves, the rest is here.

A struct is a `Struct`, several results a tuple, an error an `Error`, nil None, and a nil equals any zero value (the
types that would tell them apart are not kept).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Unsupported(Exception):
    """The suite asks for what is not emulated here."""


class Failed(Exception):
    """An assertion of the suite does not hold."""


class Skipped(Exception):
    """The suite skips itself."""


@dataclass(eq=False)
class Error:
    """A Go error. `kind` is what `errors.Is` looks for."""

    text: str
    kind: Any = None


@dataclass(eq=False)
class Struct:
    """A value of a struct type; `fields` holds what was set."""

    type: str
    fields: dict[str, Any] = field(default_factory=dict)


class Native:
    """Python's side of a Go type: methods and fields by their Go names."""


@dataclass
class Package:
    """What an import gives. A name that is not in it can still be the name of a type."""

    name: str
    names: Mapping[str, Any]


@dataclass(frozen=True)
class Type:
    """A type as it is written. `element` is that of a list or the values of a map."""

    name: str
    element: "Type | None" = None
    fields: tuple[str, ...] = ()
    make: Callable[..., Any] | None = None


@dataclass
class Reference:
    """The address of a variable."""

    scope: "Scope"
    name: str


class Scope:
    """Variables by name, and the scope around."""

    def __init__(self, parent: "Scope | None" = None) -> None:
        self.names: dict[str, Any] = {}
        self.parent = parent
        self.label = ""

    def find(self, name: str) -> "Scope | None":
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.parent
        return scope


def zero(value: Any) -> bool:
    return value is None or value is False or value in (0, "", b"", [], {}, ())


def same(left: Any, right: Any) -> bool:
    """Go's ==."""
    if isinstance(left, Struct) and isinstance(right, Struct):
        if left.type != right.type and "struct" not in (left.type, right.type):
            return False
        names = {*left.fields, *right.fields}
        return all(same(left.fields.get(name), right.fields.get(name)) for name in names)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if left is None or right is None:
        return zero(left) and zero(right)
    return bool(left == right)


class Message(str):
    """What a builder's error says: a sentence of its own, so no other builder's can be held against it."""

    __slots__ = ()


def json_field(owner: dict[str, Any], name: str) -> Any:
    """Find a field by its Go name: JSON's names differ from it in case and underscores only."""
    wanted = name.lower()
    for key, value in owner.items():
        if key.replace("_", "").replace(".", "").lower() == wanted:
            return value
    return None


def dereferenced(value: Any) -> Any:
    while isinstance(value, Reference):
        value = value.scope.names.get(value.name)
    return value


def store(target: Any, value: Any) -> None:
    """`*target = value`."""
    if isinstance(target, Reference):
        target.scope.names[target.name] = value
    elif isinstance(target, Struct) and isinstance(value, dict):
        target.fields.clear()
        target.fields[""] = value
    elif isinstance(target, Struct) and isinstance(value, Struct):
        target.fields.update(value.fields)
    else:
        raise Unsupported("an assignment through a pointer")
