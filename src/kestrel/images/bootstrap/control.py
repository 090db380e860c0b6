"""The text format of Debian's control data: stanzas of fields, and relations between packages.

Debian Policy chapter 5 (syntax of control files) and chapter 7 (relationships). Pure: text in, values out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kestrel.base.errors import InvalidArgument
from kestrel.images.bootstrap.versions import satisfies

_RELATION = re.compile(
    r"""\s*(?P<name>[a-z0-9][a-z0-9+.-]*)
        (?::(?P<arch>[a-z0-9-]+))?
        \s*(?:\(\s*(?P<op><<|<=|=|>=|>>|<|>)\s*(?P<version>[0-9A-Za-z.+~:-]+)\s*\))?
        \s*(?:\[[^]]*\])?\s*(?:<[^>]*>\s*)*""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Relation:
    """One package a field speaks of: `libc6 (>= 2.36)`."""

    name: str
    operator: str = ""
    version: str = ""

    def admits(self, version: str) -> bool:
        """Tell whether a package of this name in `version` is meant."""
        return satisfies(version, self.operator, self.version)

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


Group = tuple[Relation, ...]
"""Alternatives: `default-mta | mail-transport-agent`; any one of them will do."""


def relations(field: str) -> tuple[Group, ...]:
    """Read Depends and its kin: groups joined by commas, alternatives by bars.

    Raises InvalidArgument when an item is not a relation.
    """
    return tuple(tuple(_relation(item) for item in group.split("|")) for group in field.split(",") if group.strip())


def _relation(text: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if not match:
        raise InvalidArgument(f"not a package relation: {text.strip()!r}")
    return Relation(match["name"], match["op"] or "", match["version"] or "")


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield each paragraph as a dict of its fields; names are lower case, continuation lines keep their newlines."""
    for block in re.split(r"\n[ \t]*\n+", text):
        fields = stanza(block)
        if fields:
            yield fields


def stanza(block: str) -> dict[str, str]:
    """Read one paragraph. Comment lines are left out; a line that is no field raises InvalidArgument."""
    fields: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t":
            if not name:
                raise InvalidArgument(f"continuation line before any field: {line.strip()!r}")
            fields[name] += "\n" + line.strip()
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise InvalidArgument(f"not a control field: {line!r}")
        name = name.strip().lower()
        fields[name] = value.strip()
    return fields
