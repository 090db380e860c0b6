"""Label and field selectors: parse what clients put in a query, and match objects against it.

Label selectors come as text (`app in (a,b),!old,tier=web`) or as a LabelSelector object; both become `Labels`.
The grammar and the meaning of a missing key are those of Kubernetes' "Labels and Selectors" page: `!=` and `notin`
also match objects without the key. Field selectors know only `=`, `==` and `!=`, on the fields a resource row lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api.scheme import JSONObject, Resource, Selectable

_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|>|<|[^\s=!,()<>]+)")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")

EQUALS, NOT_EQUALS, IN, NOT_IN, EXISTS, MISSING, GREATER, LESS = "=", "!=", "in", "notin", "exists", "!", "gt", "lt"
_FIELD_OPERATOR = re.compile(r"(?<!\\)(==|!=|=)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels fulfil the condition."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "=" | "in":
                return value in self.values
            case "!=" | "notin":
                return value not in self.values
        return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        try:
            left, right = int(value or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return left > right if self.operator == GREATER else left < right

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({values})"
            case "gt" | "lt":
                return f"{self.key}{'>' if self.operator == GREATER else '<'}{values}"
        return f"{self.key}{self.operator}{values}"


@dataclass(frozen=True, slots=True)
class Labels:
    """A label selector: every requirement must hold. The empty selector matches everything."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> Labels:
        """Read the text form; InvalidArgument when it does not follow the grammar."""
        return cls(tuple(_LabelParser(text).parse())) if text.strip() else cls()

    @classmethod
    def of(cls, selector: Mapping[str, Any] | None) -> Labels:
        """Read a LabelSelector object; None selects nothing, an empty one everything."""
        if selector is None:
            return cls(nothing=True)
        found = [Requirement(k, EQUALS, frozenset((str(v),))) for k, v in (selector.get("matchLabels") or {}).items()]
        for entry in selector.get("matchExpressions") or ():
            operator = _OBJECT_OPERATORS.get(str(entry.get("operator")))
            if operator is None:
                raise InvalidArgument(f"{entry.get('operator')!r} is not a valid label selector operator")
            found.append(Requirement(str(entry.get("key", "")), operator, frozenset(entry.get("values") or ())))
        return cls(tuple(found))

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected."""
        labels = labels or {}
        return not self.nothing and all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements) or self.nothing

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


_OBJECT_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": MISSING}


class _LabelParser:
    """Recursive descent over the tokens of one selector."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._scan(text)
        self._next = 0

    @staticmethod
    def _scan(text: str) -> list[str]:
        return [token for token in _TOKEN.findall(text) if token]

    def parse(self) -> list[Requirement]:
        found = [self._requirement()]
        while self._peek() == ",":
            self._take()
            found.append(self._requirement())
        if self._peek():
            raise self._error(f"found '{self._peek()}', expected: ',' or 'end of string'")
        return found

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _error(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"unable to parse requirement: {why}", selector=self._text)

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._take()
            return Requirement(self._key(), MISSING)
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return Requirement(key, EXISTS)
        self._take()
        if operator in ("=", "==", "!="):
            return Requirement(key, NOT_EQUALS if operator == "!=" else EQUALS, frozenset((self._value(),)))
        if operator in ("in", "notin"):
            return Requirement(key, operator, frozenset(self._values()))
        if operator in (">", "<"):
            return Requirement(key, GREATER if operator == ">" else LESS, frozenset((self._number(key),)))
        raise self._error(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _key(self) -> str:
        token = self._take()
        if not token or token in "=!,()<>" or token == "==":
            raise self._error(f"found '{token}', expected: identifier")
        prefix, slash, name = token.rpartition("/")
        if (slash and not _SUBDOMAIN.match(prefix)) or not _LABEL_NAME.match(name):
            raise InvalidArgument(
                f'key: Invalid value: "{token}": name part must consist of alphanumeric characters, "-", "_" or ".", '
                "and must start and end with an alphanumeric character"
            )
        return token

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        return self._checked(self._take())

    def _checked(self, value: str) -> str:
        if value and not _LABEL_NAME.match(value):
            raise self._error(
                f'values[0][value]: Invalid value: "{value}": a valid label must be an empty string or consist of '
                "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )
        return value

    def _number(self, key: str) -> str:
        value = self._take()
        if not re.fullmatch(r"[+-]?\d{1,19}", value):
            raise self._error(
                f"values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
            )
        return value

    def _values(self) -> list[str]:
        if self._take() != "(":
            raise self._error("expected: '('")
        found: list[str] = []
        empty = True
        while True:
            token = self._take()
            if token == ")":
                return [*found, ""] if empty else found
            if token == ",":
                if empty:
                    found.append("")
                empty = True
            elif not token or not empty:
                raise self._error(f"found '{token}', expected: ',' or ')'")
            else:
                found.append(self._checked(token))
                empty = False


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field."""

    label: str
    value: str
    equal: bool

    def __str__(self) -> str:
        return f"{self.label}{'=' if self.equal else '!='}{_escape(self.value)}"


@dataclass(frozen=True, slots=True)
class Fields:
    """A field selector. Build it with `parse`, check it with `for_resource`, then match objects."""

    requirements: tuple[FieldRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Fields:
        """Read the text form; InvalidArgument when a term has no operator."""
        return cls(tuple(_field_requirement(term, text) for term in _split_terms(text) if term))

    def exact(self, label: str) -> str | None:
        """The value a field must have, when the selector says so: lets a store go straight to one name."""
        return next((r.value for r in self.requirements if r.equal and r.label == label), None)

    def for_resource(self, resource: Resource) -> FieldMatcher:
        """Bind to a kind; InvalidArgument names a field the kind does not select by."""
        known = {field.label: field for field in (*_METADATA_FIELDS, *resource.selectable)}
        if not resource.namespaced:
            known.pop("metadata.namespace", None)
        for requirement in self.requirements:
            if requirement.label not in known:
                raise InvalidArgument(
                    f'Unable to find "{resource.api_version}, Resource={resource.plural}" that match label selector '
                    f'"", field selector "{self}": field label not supported: {requirement.label}',
                    hint=f"{resource.plural} can be selected by: {', '.join(sorted(known))}",
                )
        return FieldMatcher(tuple((known[r.label], r.value, r.equal) for r in self.requirements))

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldMatcher:
    """A field selector bound to one kind."""

    terms: tuple[tuple[Selectable, str, bool], ...]

    def matches(self, obj: JSONObject) -> bool:
        """Whether the object is selected."""
        return all((field_value(field, obj) == value) is equal for field, value, equal in self.terms)


_METADATA_FIELDS = (
    Selectable("metadata.name", ("metadata", "name")),
    Selectable("metadata.namespace", ("metadata", "namespace")),
)


def field_value(field: Selectable, obj: JSONObject) -> str:
    """The value of a selectable field, as the text a selector compares with."""
    value: Any = obj
    for key in field.path:
        if not isinstance(value, dict):
            return field.default
        value = value.get(key)
    if value is None or value == "":
        return field.default
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _split_terms(text: str) -> list[str]:
    """Split at commas that no backslash protects."""
    return re.split(r"(?<!\\),", text)


def _field_requirement(term: str, text: str) -> FieldRequirement:
    found = _FIELD_OPERATOR.search(term)
    if found is None:
        raise InvalidArgument(f"invalid selector: '{text}'; can't understand '{term}'")
    value = term[found.end() :]
    if _FIELD_OPERATOR.search(value):
        raise InvalidArgument(f"invalid field selector: unescaped character in value: {value}")
    return FieldRequirement(term[: found.start()].strip(), _unescape(value), found.group() != "!=")


def _escape(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)
