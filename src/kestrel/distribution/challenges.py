"""`WWW-Authenticate` as values (RFC 9110 section 11.6.1): what a server wants before it answers. Text in, values out.

A server may name several schemes, in one header field with commas or in several fields, and the parameters use the
same comma: `Basic realm="a", Bearer realm="https://b",service="c"`. So the text is read token by token.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=\s|,|$)")
_PARAMETER = re.compile(rf"[\s,]*({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")
_TOKEN68 = re.compile(r"\s+([0-9A-Za-z\-._~+/]+=*)\s*(?=,|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, lower-case, with its parameters, their names lower-case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes a Bearer challenge asks for."""
        return tuple(self.parameters.get("scope", "").split())


def parse(fields: Iterable[str]) -> list[Challenge]:
    """Read every field; what cannot be read ends its field: a server may say things we do not know."""
    return [challenge for text in fields for challenge in _parse_field(text)]


def _parse_field(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = 0
    while scheme := _SCHEME.match(text, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        if opaque := _TOKEN68.match(text, position):
            position = opaque.end()
        while parameter := _PARAMETER.match(text, position):
            position = parameter.end()
            name, quoted, bare = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            parameters.setdefault(name.lower(), value)
        found.append(Challenge(scheme[1].lower(), parameters))
    return found
