"""Just enough of Go to read the tables in a test file: literals, a few calls, assignments, in the order they stand.

`tokens` cuts a text; `Reader` evaluates expressions from a token on. Strings, numbers, composite literals (lists,
maps, structs as dictionaries), concatenation, and calls of the handful of functions that tables use. Whatever is
beyond that becomes an `Opaque`, which a judge must treat as "cannot say".
"""

import re
from dataclasses import dataclass
from typing import Any

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)|(?P<raw>`[^`]*`)|(?P<string>"(?:\\.|[^"\\\n])*")|(?P<rune>'(?:\\.|[^'\\])+')
    |(?P<number>0[xXobOB]?[0-9a-fA-F_]+|\d[\d_.]*)|(?P<name>[^\W\d]\w*)|(?P<op>:=|\.\.\.|==|!=|&&|\|\||<-|\+=|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Opaque:
    """Something that was not evaluated."""

    text: str


def tokens(text: str) -> list[Token]:
    found = [Token(m.lastgroup or "", m[0], m.start()) for m in TOKEN.finditer(text)]
    return [t for t in found if t.kind != "space"]


def unquote(text: str) -> str:
    if text[0] == "`":
        return text[1:-1].replace("\r", "")

    def plain(match: "re.Match[str]") -> str:
        body = match[1]
        if body[0] in "xuU" and len(body) > 1:
            return chr(int(body[1:], 16))
        if body.isdigit():
            return chr(int(body, 8))
        return _SIMPLE.get(body, body)

    return _ESCAPE.sub(plain, text[1:-1])


class Reader:
    """Evaluates from a position; `names` holds what identifiers stand for."""

    def __init__(self, found: list[Token], at: int = 0, names: "dict[str, Any] | None" = None) -> None:
        self.tokens = found
        self.at = at
        self.names = names if names is not None else {}

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].text if self.at + ahead < len(self.tokens) else ""

    def take(self, text: str = "") -> Token:
        token = self.tokens[self.at]
        if text and token.text != text:
            raise ValueError(f"expected {text!r}, found {token.text!r} at {token.at}")
        self.at += 1
        return token

    def expression(self) -> Any:
        value = self.operand()
        while self.peek() == "+":
            self.take()
            other = self.operand()
            value = value + other if isinstance(value, str) and isinstance(other, str) else Opaque("+")
        return value

    def operand(self) -> Any:
        token = self.tokens[self.at]
        if token.kind in ("raw", "string"):
            self.take()
            return unquote(token.text)
        if token.kind == "rune":
            self.take()
            return unquote(token.text)
        if token.kind == "number":
            self.take()
            try:
                return int(token.text, 8 if re.fullmatch(r"0[0-7]+", token.text) else 0)
            except ValueError:
                return Opaque(token.text)
        if token.text in ("&", "!", "-", "*"):
            self.take()
            value = self.operand()
            return -value if token.text == "-" and isinstance(value, int) else value
        if token.text == "(":
            self.take()
            value = self.expression()
            self.take(")")
            return value
        if token.text == "{":
            return self.composite()
        if token.text == "[":
            return self.typed()
        if token.text == "func":
            return self.function()
        return self.name()

    def typed(self) -> Any:
        while self.peek() == "[":
            self.skip("[", "]")
        if self.peek() == "struct":
            self.take()
            fields = self.struct_fields()
            return self.composite(fields)
        while self.peek() in ("*", "."):
            self.take()
        self.take()
        while self.peek() == ".":
            self.take()
            self.take()
        if self.peek() == "(":
            return self.arguments()[0]
        return self.composite(self.names.get(f"type {self.peek(-1)}"))

    def struct_fields(self) -> list[str]:
        fields: list[str] = []
        self.take("{")
        while self.peek() != "}":
            line = [self.take().text]
            while self.peek() == ",":
                self.take()
                line.append(self.take().text)
            fields += line
            depth = 0
            start = self.tokens[self.at - 1].at
            # A field's type ends where the next line begins.
            while depth or (self.peek() != "}" and "\n" not in self.between(start, self.tokens[self.at].at)):
                depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(self.peek(), 0)
                start = self.take().at
        self.take("}")
        return fields

    def between(self, begin: int, end: int) -> str:
        return self.names["source"][begin:end]

    def function(self) -> Opaque:
        self.take("func")
        self.skip("(", ")")
        while self.peek() != "{":
            self.take()
        self.skip("{", "}")
        return Opaque("func")

    def skip(self, opening: str, closing: str) -> None:
        depth = 0
        while True:
            text = self.take().text
            depth += (text == opening) - (text == closing)
            if depth == 0:
                return

    def name(self) -> Any:
        text = self.take().text
        while self.peek() == ".":
            self.take()
            text += "." + self.take().text
        if text == "map":
            self.skip("[", "]")
            if self.peek() == "struct":
                self.take()
                self.skip("{", "}")
            elif self.peek() == "[":
                self.skip("[", "]")
                self.take()
            else:
                self.take()
            return self.composite(keyed=True)
        if text == "struct":
            self.at -= 1
            self.take()
            fields = self.struct_fields()
            return self.composite(fields)
        if self.peek() == "(":
            return self.call(text, self.arguments())
        if self.peek() == "[":
            self.skip("[", "]")
            return self.call(text, self.arguments()) if self.peek() == "(" else Opaque(text)
        if self.peek() == "{":
            return self.composite(self.names.get("type " + text))
        return {"true": True, "false": False, "nil": None}.get(text, self.names.get(text, Opaque(text)))

    def arguments(self) -> list[Any]:
        self.take("(")
        found = []
        while self.peek() != ")":
            if self.peek() == "[" and self.peek(1) == "]" and self.peek(3) in (",", ")"):  # a type
                self.at += 3
                found.append(Opaque("type"))
            else:
                found.append(self.expression())
            if self.peek() == "...":
                self.take()
            if self.peek() == ",":
                self.take()
            elif self.peek() != ")":
                self.rest()
        self.take(")")
        return found

    def rest(self) -> None:
        """Pass over what is not understood, up to the next comma or closing bracket."""
        depth = 0
        while depth or self.peek() not in (",", ")", "}", "]"):
            depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(self.peek(), 0)
            self.take()

    def composite(self, fields: "list[str] | None" = None, *, keyed: bool = False, element: bool = False) -> Any:
        self.take("{")
        items: list[Any] = []
        table: dict[Any, Any] = {}
        while self.peek() != "}":
            inner = self.composite(fields, element=True) if self.peek() == "{" else self.key()
            if self.peek() == ":":
                self.take()
                value = self.expression()
                if self.peek() not in (",", "}"):
                    self.rest()
                    value = Opaque("expression")
                table[inner if not isinstance(inner, Opaque) else inner.text] = value
            else:
                items.append(inner)
                if self.peek() not in (",", "}"):
                    self.rest()
            if self.peek() == ",":
                self.take()
        self.take("}")
        if table:
            return table
        if fields is not None and items and (element or not isinstance(items[0], dict | list)):
            return dict(zip(fields, items, strict=False))
        return {} if keyed else items

    def key(self) -> Any:
        if self.tokens[self.at].kind == "name" and self.peek(1) == ":":
            return Opaque(self.take().text)
        return self.expression()

    def call(self, name: str, arguments: list[Any]) -> Any:
        if name == "integration.UnixOrWindows":
            return arguments[0]
        if name == "fmt.Sprintf":
            return sprintf(arguments)
        if name == "fmt.Appendf":
            return sprintf(arguments[1:])
        if name == "strings.Repeat" and isinstance(arguments[1], int):
            return arguments[0] * arguments[1]
        if name in ("regexp.MustCompile", "string", "byte", "strings.TrimSpace"):
            return (
                arguments[0].strip() if name.endswith("TrimSpace") and isinstance(arguments[0], str) else arguments[0]
            )
        maker = self.names.get(f"call {name}")
        return maker(*arguments) if maker is not None else {"call": name, "arguments": arguments}


def sprintf(arguments: list[Any]) -> Any:
    text, rest = arguments[0], arguments[1:]
    if not isinstance(text, str) or any(isinstance(a, Opaque | dict) for a in rest):
        return Opaque("sprintf")
    values = iter(rest)

    def put(match: "re.Match[str]") -> str:
        if match[0] == "%%":
            return "%"
        value = next(values, "")
        return f'"{value}"' if match[0] == "%q" else str(value)

    return re.sub(r"%[sqvd%]", put, text)


def tried(reader: Reader) -> Any:
    """Evaluate, or give up."""
    try:
        return reader.expression()
    except (ValueError, IndexError, TypeError):
        return Opaque("not understood")


def functions(text: str) -> dict[str, str]:
    """Return the bodies of top-level functions by name."""
    found = {}
    for match in re.finditer(r"^func (?:\([^)]*\) )?(\w+)\(.*?^}", text, re.MULTILINE | re.DOTALL):
        found[match[1]] = match[0]
    return found
