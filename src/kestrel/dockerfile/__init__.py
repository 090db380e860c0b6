"""Floor 2: the Dockerfile language. Pure: text in, values out, errors that point at a line.

document = parse(text, "Dockerfile")     # nodes with positions
program = decode(document)               # stages of typed instructions
Expander(document.escape).word("${TAG:-latest}", {"TAG": "1.2"})
ignore = parse_ignore("*.log\\n!keep.log")
"""

from kestrel.dockerfile.decode import decode, decode_text
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.expand import Expander
from kestrel.dockerfile.ignore import IgnoreList
from kestrel.dockerfile.ignore import parse as parse_ignore
from kestrel.dockerfile.instructions import Program, Stage
from kestrel.dockerfile.nodes import Document, Node, Range, Source
from kestrel.dockerfile.parser import parse

__all__ = [
    "parse",
    "decode",
    "decode_text",
    "parse_ignore",
    "Document",
    "DockerfileError",
    "Expander",
    "IgnoreList",
    "Node",
    "Program",
    "Range",
    "Source",
    "Stage",
]
