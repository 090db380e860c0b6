"""errors, fmt, strings, bytes, strconv."""

import json as python_json
import re
from typing import Any

from builder_judges.go.values import Error, Message, Native, Package, dereferenced, same


def formatted(pattern: str, *values: Any) -> str:
    """Go's Sprintf for the verbs that tests use."""
    rest = list(values)

    def put(match: "re.Match[str]") -> str:
        number, flags, verb = match[1], match[2], match[3]
        if verb == "%":
            return "%"
        value = dereferenced(values[int(number) - 1] if number else rest.pop(0))
        if isinstance(value, bytes):
            value = value.hex() if verb == "x" else value.decode("utf-8", "surrogateescape")
        if verb == "q":
            return python_json.dumps(str(value), ensure_ascii=False)
        if verb == "o":
            return f"{value:{flags}o}"
        if verb in "xX":
            return f"{value:{flags}{verb}}" if isinstance(value, int) else str(value).encode().hex()
        if verb == "d":
            return f"{int(value):{flags}d}" if value is not None else "0"
        if verb == "t":
            return "true" if value else "false"
        return f"{words(value):{'>' + flags if flags.isdecimal() else ''}}" if verb in "svw" else str(value)

    return re.sub(r"%(?:\[(\d)\])?([-+#0-9.]*)([a-zA-Z%])", put, pattern.replace("%+v", "%v"))


def words(value: Any) -> str:
    if isinstance(value, Error):
        return value.text
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(map(words, value)) + "]"
    return str(value)


def is_error(error: Any, kind: Any) -> bool:
    return error is not None and (error is kind or getattr(error, "kind", None) is kind)


errors = Package(
    "errors",
    {
        "New": Error,
        "Errorf": lambda pattern, *values: Error(formatted(pattern, *values)),
        "Wrap": lambda error, text: error and Error(f"{text}: {error.text}", error.kind),
        "Wrapf": lambda error, pattern, *values: (
            error and Error(f"{formatted(pattern, *values)}: {error.text}", error.kind)
        ),
        "WithStack": lambda error: error,
        "Is": is_error,
    },
)
fmt = Package(
    "fmt",
    {
        "Sprintf": formatted,
        "Sprint": lambda *values: "".join(map(words, values)),
        "Errorf": lambda pattern, *values: Error(formatted(pattern, *values)),
        "Appendf": lambda start, pattern, *values: bytes(start or b"") + formatted(pattern, *values).encode(),
        "Fprintf": lambda sink, pattern, *values: sink.WriteString(formatted(pattern, *values)),
        "Println": lambda *_: None,
    },
)


class Buffer(Native):
    """bytes.Buffer, strings.Builder and readers of either."""

    def __init__(self, data: "bytes | str | None" = b"") -> None:
        self.data = bytearray(data.encode() if isinstance(data, str) else data or b"")
        self.said = False
        """Whether a builder's error went in: its sentence cannot be held against ours."""

    def Write(self, data: bytes) -> tuple[int, None]:
        self.data += data
        return len(data), None

    def WriteString(self, text: str) -> tuple[int, None]:
        return self.Write(text.encode())

    def WriteByte(self, byte: int) -> None:
        self.data.append(byte)

    WriteRune = WriteByte

    def Bytes(self) -> bytes:
        return bytes(self.data)

    def String(self) -> str:
        words = self.data.decode("utf-8", "surrogateescape")
        return Message(words) if self.said else words

    def Len(self) -> int:
        return len(self.data)

    def Reset(self) -> None:
        self.data.clear()

    def Close(self) -> None:
        return None


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _cut(text: str, separator: str) -> tuple[str, str, bool]:
    before, found, after = text.partition(separator)
    return before, after, bool(found)


strings = Package(
    "strings",
    {
        "Builder": Buffer,
        "NewReader": Buffer,
        "Contains": lambda text, part: part in text,
        "HasPrefix": lambda text, part: text.startswith(part),
        "HasSuffix": lambda text, part: text.endswith(part),
        "TrimSpace": lambda text: text.strip(),
        "TrimPrefix": lambda text, part: text.removeprefix(part),
        "TrimSuffix": lambda text, part: text.removesuffix(part),
        "Trim": lambda text, cut: text.strip(cut),
        "TrimLeft": lambda text, cut: text.lstrip(cut),
        "TrimRight": lambda text, cut: text.rstrip(cut),
        "Split": _split,
        "SplitN": _split,
        "Cut": _cut,
        "Fields": lambda text: text.split(),
        "Join": lambda parts, separator: separator.join(parts or []),
        "Repeat": lambda text, count: text * count,
        "Replace": lambda text, old, new, count: text.replace(old, new, count),
        "ReplaceAll": lambda text, old, new: text.replace(old, new),
        "ToLower": lambda text: text.lower(),
        "ToUpper": lambda text: text.upper(),
        "EqualFold": lambda a, b: a.lower() == b.lower(),
        "Count": lambda text, part: text.count(part),
        "Index": lambda text, part: text.find(part),
    },
)
bytes_ = Package(
    "bytes",
    {
        "Buffer": Buffer,
        "NewBuffer": Buffer,
        "NewBufferString": Buffer,
        "NewReader": Buffer,
        "TrimSpace": lambda data: data.strip(),
        "Equal": same,
        "Contains": lambda data, part: part in data,
        "Repeat": lambda data, count: data * count,
    },
)
strconv = Package(
    "strconv",
    {
        "Itoa": str,
        "FormatInt": lambda number, _: str(number),
        "Quote": python_json.dumps,
        "ParseInt": lambda text, *_: (int(text), None),
        "Atoi": lambda text: (int(text), None),
    },
)
