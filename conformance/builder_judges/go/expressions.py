"""Expressions and types of Go, evaluated."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from builder_judges.go.nodes import Node, children, text
from builder_judges.go.values import (
    Error,
    Failed,
    Message,
    Native,
    Package,
    Reference,
    Scope,
    Struct,
    Type,
    Unsupported,
    dereferenced,
    json_field,
    same,
)
from builder_judges.golang import unquote


@dataclass
class Function:
    """A function of the suite with the scope it closes over; `receiver` is bound for a method."""

    node: Node
    scope: "Scope"
    receiver: Any = None


class Program(Protocol):
    """What a walk knows of the package it is in: the `Suite`."""

    types: dict[str, Type]
    methods: dict[tuple[str, str], Node]
    scope_of: dict[int, Scope]
    text_type: Callable[[str], Any] | None
    line: int

    def apply(self, function: Any, *arguments: Any) -> Any: ...

    def declare_types(self, node: Node) -> None: ...


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    return 0 if value is None else len(value)


def _append(values: Any, *more: Any) -> Any:
    if isinstance(values, bytes) or (values is None and more and all(isinstance(m, int) for m in more)):
        return (values or b"") + bytes(more)
    return [*(values or []), *more]


BUILTINS: dict[str, Any] = {
    "true": True,
    "false": False,
    "nil": None,
    "len": _len,
    "append": _append,
    "delete": lambda values, key: values.pop(key, None),
    "string": lambda v: (
        v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else chr(v) if isinstance(v, int) else v
    ),
    "min": min,
    "max": max,
    "close": lambda _: None,
    **dict.fromkeys("int int8 int16 int32 int64 uint uint8 uint16 uint32 uint64 byte rune".split(), int),
    "float64": float,
    "any": lambda value: value,
    "error": lambda value: value,
}


class Expressions:
    """What one call evaluates. `scope` is where types are looked up."""

    def __init__(self, suite: Program, scope: Scope) -> None:
        self.suite = suite
        self.scope = scope

    def value(self, node: Node | None, scope: Scope) -> Any:
        if node is None:
            return None
        kind = node.type
        if kind in ("interpreted_string_literal", "raw_string_literal"):
            return unquote(text(node))
        if kind == "rune_literal":
            return ord(unquote(text(node)))
        if kind == "int_literal":
            return _integer(text(node))
        if kind == "float_literal":
            return float(text(node))
        if kind in ("true", "false", "nil"):
            return BUILTINS[kind]
        if kind == "iota":
            return self._identifier("iota", scope)
        if kind in ("identifier", "package_identifier", "type_identifier"):
            return self._identifier(text(node), scope)
        if kind == "parenthesized_expression":
            return self.value(children(node)[0], scope)
        if kind == "func_literal":
            return Function(node, scope)
        if kind == "expression_list":
            return self._several(node, scope)
        if kind in ("slice_type", "map_type", "array_type", "pointer_type", "qualified_type", "struct_type"):
            return self.type(node)
        handler = getattr(self, f"_{kind}", None)
        if handler is None:
            raise Unsupported(f"a {kind.replace('_', ' ')}")
        return handler(node, scope)

    def _identifier(self, name: str, scope: Scope) -> Any:
        found = scope.find(name)
        if found is not None:
            return found.names[name]
        if name in self.suite.types:
            return self.suite.types[name]
        raise Unsupported(f"the name {name}")

    def _call_expression(self, node: Node, scope: Scope) -> Any:
        called = node.child_by_field_name("function")
        assert called is not None
        name = text(called)
        given = children(node.child_by_field_name("arguments"))
        if name in ("make", "new"):
            return self._make(name, given, scope)
        function = self.value(called, scope)
        arguments: list[Any] = []
        for each in given:
            if each.type == "variadic_argument":
                arguments += list(self.value(children(each)[0], scope) or [])
            else:
                arguments.append(self.value(each, scope))
        if len(given) == 1 and isinstance(arguments[0], tuple):
            arguments = list(arguments[0])
        if isinstance(function, Type):
            if len(arguments) != 1:
                raise Unsupported(f"a call of {function.name}")
            return self._convert(function, arguments[0])
        result = self.suite.apply(function, *arguments)
        self.suite.line = node.start_point[0] + 1
        return result

    def _make(self, name: str, given: list[Node], scope: Scope) -> Any:
        written = self.type(given[0])
        if name == "new":
            return self.zero_of(written)
        if written.name == "[]byte":
            return bytearray(self.value(given[1], scope))
        if written.name == "chan":
            raise Unsupported("a channel")
        if written.name.startswith("map"):
            return {}
        return [None] * (self.value(given[1], scope) if len(given) > 1 else 0)

    def _convert(self, written: Type, value: Any) -> Any:
        if written.name == "[]byte":
            return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value or b"")
        if written.make is not None:
            return written.make(value)
        return value

    def _type_conversion_expression(self, node: Node, scope: Scope) -> Any:
        written = self.type(node.child_by_field_name("type"))
        return self._convert(written, self.value(node.child_by_field_name("operand"), scope))

    def _selector_expression(self, node: Node, scope: Scope) -> Any:
        operand = node.child_by_field_name("operand")
        return self.member(self.value(operand, scope), text(node.child_by_field_name("field")))

    def member(self, owner: Any, name: str) -> Any:
        """`owner.name`: a package's name, a field, or a method."""
        if isinstance(owner, Package):
            return owner.names[name] if name in owner.names else Type(f"{owner.name}.{name}")
        owner = dereferenced(owner)
        if isinstance(owner, Error):
            if name == "Error":
                return lambda: Message(owner.text)
            raise Unsupported(f"{name} of an error")
        if isinstance(owner, Struct):
            return self._field(owner, name)
        if isinstance(owner, dict):  # what was read out of JSON
            return json_field(owner, name)
        if isinstance(owner, Native):
            if not hasattr(owner, name):
                raise Unsupported(f"{type(owner).__name__}.{name}")
            return getattr(owner, name)
        if owner is None:
            return None
        if isinstance(owner, str) and self.suite.text_type is not None:
            return self.member(self.suite.text_type(owner), name)
        raise Unsupported(f"{name} of {type(owner).__name__}")

    def _field(self, owner: Struct, name: str) -> Any:
        if name in owner.fields:
            return owner.fields[name]
        method = self.suite.methods.get((owner.type, name))
        if method is not None:
            return Function(method, self.suite.scope_of[method.id], owner)
        for inner in owner.fields.values():
            if isinstance(inner, Native) and hasattr(inner, name):
                return getattr(inner, name)
            if isinstance(inner, dict) and owner.fields.get("") is inner:
                return json_field(inner, name)
        return None

    def _index_expression(self, node: Node, scope: Scope) -> Any:
        values = dereferenced(self.value(node.child_by_field_name("operand"), scope))
        key = self.value(node.child_by_field_name("index"), scope)
        if isinstance(values, dict):
            return values.get(key)
        if isinstance(values, Function):
            return values  # type arguments
        if values is None:
            raise Failed(f"index {key} of nothing")
        if not -1 < key < len(values):
            raise Failed(f"index {key} of {len(values)}")
        return values[key]

    def _slice_expression(self, node: Node, scope: Scope) -> Any:
        start = self.value(node.child_by_field_name("start"), scope)
        end = self.value(node.child_by_field_name("end"), scope)
        return (self.value(node.child_by_field_name("operand"), scope) or [])[start:end]

    def _type_assertion_expression(self, node: Node, scope: Scope) -> Any:
        return self.value(node.child_by_field_name("operand"), scope)

    def _unary_expression(self, node: Node, scope: Scope) -> Any:
        operator = text(node.children[0])
        operand = node.child_by_field_name("operand")
        assert operand is not None
        if operator == "&":
            if operand.type == "identifier":
                name = text(operand)
                return Reference(scope.find(name) or scope, name)
            return self.value(operand, scope)
        value = self.value(operand, scope)
        if operator == "*":
            return dereferenced(value)
        if operator == "!":
            return not value
        if operator == "-":
            return -value
        raise Unsupported(f"the operator {operator}")

    def _binary_expression(self, node: Node, scope: Scope) -> Any:
        operator = text(node.child_by_field_name("operator"))
        left = self.value(node.child_by_field_name("left"), scope)
        right = node.child_by_field_name("right")
        if operator == "&&":
            return bool(left) and bool(self.value(right, scope))
        if operator == "||":
            return bool(left) or bool(self.value(right, scope))
        return binary(operator, left, self.value(right, scope))

    # Types and composite literals

    def type(self, node: Node | None) -> Type:
        if node is None:
            return Type("")
        if node.type in ("slice_type", "array_type", "implicit_length_array_type"):
            element = self.type(node.child_by_field_name("element"))
            return Type("[]byte" if element.name in ("byte", "uint8") else "[]", element)
        if node.type == "map_type":
            return Type("map", self.type(node.child_by_field_name("value")))
        if node.type == "pointer_type":
            return self.type(children(node)[0])
        if node.type == "struct_type":
            declared = [d for part in children(node) for d in children(part) if d.type == "field_declaration"]
            return Type("struct", fields=tuple(name for d in declared for name in field_names(d)))
        if node.type == "channel_type":
            return Type("chan")
        if node.type == "qualified_type":
            name = text(node)
            package, _, member = name.partition(".")
            found = self.scope.find(package)
            inside = found.names[package] if found else None
            known = inside.names.get(member) if isinstance(inside, Package) else None
            return known if isinstance(known, Type) else Type(name, make=known if isinstance(known, type) else None)
        name = text(node)
        return self.suite.types.get(name, Type(name))

    def zero_of(self, written: Type) -> Any:
        if isinstance(written.make, type) and issubclass(written.make, Native):
            return written.make()
        if written.name == "[]byte":
            return b""
        if written.name.startswith(("[]", "map", "chan", "error", "any", "func", "interface")):
            return None
        if written.name in BUILTINS:
            return {"string": "", "bool": False}.get(written.name, 0)
        return Struct(written.name) if written.fields or "." in written.name else None

    def _composite_literal(self, node: Node, scope: Scope) -> Any:
        return self.literal(self.type(node.child_by_field_name("type")), node.child_by_field_name("body"), scope)

    def literal(self, written: Type, body: Node | None, scope: Scope) -> Any:
        if written.name == "map":
            return dict(self._keyed(written, body, scope))
        if written.name in ("[]", "[]byte"):
            values = [self._element(each, written.element, scope) for each in children(body)]
            return bytes(values) if written.name == "[]byte" else values
        if written.element is not None and not written.fields:  # a named list or map
            inner = [c.type for c in children(body)]
            return self.literal(Type("map" if "keyed_element" in inner else "[]", written.element), body, scope)
        fields: dict[str, Any] = {}
        for number, each in enumerate(children(body)):
            if each.type == "keyed_element":
                key, value = children(each)
                fields[text(key)] = self._element(value, None, scope)
            else:
                fields[written.fields[number]] = self._element(each, None, scope)
        if isinstance(written.make, type) and issubclass(written.make, Native):
            return written.make(**fields)
        return Struct(written.name, fields)

    def _keyed(self, written: Type, body: Node | None, scope: Scope) -> Iterator[tuple[Any, Any]]:
        for each in children(body):
            key, value = children(each)
            yield self._element(key, None, scope), self._element(value, written.element, scope)

    def _element(self, node: Node, written: Type | None, scope: Scope) -> Any:
        inner = children(node)[0] if node.type == "literal_element" else node
        if inner.type == "literal_value":
            return self.literal(written or Type("struct"), inner, scope)
        return self.value(inner, scope)


def field_names(declared: Node) -> list[str]:
    names = [text(n) for n in declared.children_by_field_name("name")]
    return names or [text(declared.child_by_field_name("type")).lstrip("*").rpartition(".")[2]]


def _integer(written: str) -> int:
    written = written.replace("_", "")
    return int(written, 8) if written[:1] == "0" and written.isdigit() and len(written) > 1 else int(written, 0)


def binary(operator: str, left: Any, right: Any) -> Any:
    left, right = dereferenced(left), dereferenced(right)
    if operator == "==":
        return same(left, right)
    if operator == "!=":
        return not same(left, right)
    if operator == "+":
        return ("" if isinstance(right, str) else 0) + right if left is None else left + right
    table: dict[str, Callable[[Any, Any], Any]] = {
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a // b,
        "%": lambda a, b: a % b,
        "<": lambda a, b: a < b,
        ">": lambda a, b: a > b,
        "<=": lambda a, b: a <= b,
        ">=": lambda a, b: a >= b,
        "&": lambda a, b: a & b,
        "|": lambda a, b: a | b,
        "<<": lambda a, b: a << b,
        ">>": lambda a, b: a >> b,
        "&^": lambda a, b: a & ~b,
    }
    if operator not in table:
        raise Unsupported(f"the operator {operator}")
    return table[operator](left or 0, right or 0)
