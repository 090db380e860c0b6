"""Values written in another form that means the same: what MAINTAINER and `ENV name value` hold, as name=value."""

import re

from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.expand import Expander
from kestrel.dockerfile.lint import Subject


def literal(text: str, escape: str) -> str:
    """Return a text in double quotes, in which it means itself."""
    return '"' + re.sub(rf'["${re.escape(escape)}]', lambda found: escape + found[0], text) + '"'


def modern(subject: Subject, instruction: ins.Pairs) -> str:
    """Return a legacy pair with an equals sign; empty where its meaning cannot be kept."""
    name, value = instruction.pairs[0]
    escape = subject.document.escape
    meant = _meaning(instruction, escape)
    plain = [] if '"' in value else [f'"{value}"']
    for written in (value, *plain, _quoted(value, escape)):
        line = f"{instruction.node.written} {name}={written}"
        read = subject.read(line)
        if isinstance(read, ins.Pairs) and meant and _meaning(read, escape) == meant:
            return line
    return ""


def _meaning(instruction: ins.Pairs, escape: str) -> list[tuple[str, str, set[str]]]:
    """Return what each part comes to without its variables and with them, and which they are; nothing if it fails."""
    found = []
    for text in (part for pair in instruction.pairs for part in pair):
        try:
            without = Expander(escape).expand(text, {})
            names = without.unset | without.defaulted
            found.append((without.words[0], Expander(escape).word(text, {name: f"<{name}>" for name in names}), names))
        except DockerfileError:
            return []
    return found


def _quoted(value: str, escape: str) -> str:
    """Return a text with all its quoted and unquoted parts in one pair of double quotes."""
    e = re.escape(escape)
    part = re.compile(
        rf"""'(?P<single>[^']*)'|"(?P<double>(?:{e}.|[^"{e}])*)"|{e}(?P<escaped>.)|(?P<plain>[^'"])""", re.DOTALL
    )
    made = ""
    for found in part.finditer(value):
        itself = found["single"] or found["escaped"] or ""
        made += literal(itself, escape)[1:-1] + (found["double"] or "") + (found["plain"] or "")
    return f'"{made}"'
