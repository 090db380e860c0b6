"""Text to `Node`s: which keyword, which flags, what is left, and the here-documents that belong to it.

Knows the eighteen keywords only as far as the syntax depends on them: here-documents follow ADD, COPY and RUN (also
behind ONBUILD). What the arguments mean is `decode`'s business, so an unknown flag is not an error here; an unknown
keyword is, because nothing after it can be trusted.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from kestrel.dockerfile.errors import DockerfileError, suggestion
from kestrel.dockerfile.lexer import Lexer, Line, Opening, directives, openings
from kestrel.dockerfile.nodes import Document, Flag, Heredoc, Node, Range, Source

KEYWORDS = (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER "
    "VOLUME WORKDIR"
).split()
_TAKES_HEREDOCS = ("ADD", "COPY", "RUN")
_FLAG_NAME = re.compile(r"--([^=]*)(=?)", re.DOTALL)


def parse(text: "str | bytes", name: str = "Dockerfile") -> Document:
    """Parse a whole Dockerfile; `name` is how errors call it. Raises DockerfileError."""
    document, error = parse_readable(text, name)
    if error is not None:
        raise error
    return document


def parse_readable(text: "str | bytes", name: str = "Dockerfile") -> tuple[Document, DockerfileError | None]:
    """Parse as far as a file can be read: returns what stands before the first error, and the error.

    Raises DockerfileError only for the directives, without which nothing can be read.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    source = Source(name, text.removeprefix("\ufeff"))
    found = directives(source)
    escape = found.get("escape", "\\")
    nodes: list[Node] = []
    failed: DockerfileError | None = None
    try:
        nodes.extend(_nodes(source, escape))
        if not nodes:
            raise DockerfileError(
                "the file has no instructions", source=source, where=Range(1, 1), hint="begin with `FROM <image>`"
            )
    except DockerfileError as error:
        failed = error
    return Document(source=source, nodes=tuple(nodes), directives=found), failed


def _nodes(source: Source, escape: str) -> Iterator[Node]:
    lexer = Lexer(source, escape)
    while (line := lexer.line()) is not None:
        node = parse_line(line, source)
        try:
            announced = _openings(node, escape)
        except DockerfileError as error:
            raise error.within(source, node) from None
        heredocs = [lexer.heredoc(start, line) for start in announced]
        yield node if not heredocs else _with_heredocs(node, heredocs)


def parse_line(line: Line, source: Source) -> Node:
    """Split a logical line into keyword, flags and the rest. Raises DockerfileError for an unknown keyword."""
    written = line.text.split(None, 1)[0]
    node = Node(
        keyword=written.upper(),
        written=written,
        flags=(),
        arguments="",
        arguments_offset=len(written),
        text=line.text,
        range=line.range,
        pieces=line.pieces,
        comments=line.comments,
        empty_continuations=line.empty_continuations,
    )
    if node.keyword not in KEYWORDS:
        raise DockerfileError.at(
            node, f"unknown instruction `{written}`", source=source, hint=suggestion(written, KEYWORDS)
        )
    return _with_arguments(node, len(written))


def trigger(node: Node, source: Source) -> Node:
    """Return the instruction that an ONBUILD holds, with the positions it has in the file."""
    rest = node.arguments
    written = rest.split(None, 1)[0] if rest.strip() else ""
    if written.upper() not in KEYWORDS:
        message = f"unknown instruction `{written}` after ONBUILD" if written else "ONBUILD needs an instruction"
        raise DockerfileError.at(node, message, source=source, hint=suggestion(written, KEYWORDS))
    inner = replace(node, keyword=written.upper(), written=written)
    return _with_arguments(inner, node.arguments_offset + len(written))


def _with_arguments(node: Node, offset: int) -> Node:
    """Read flags from a position of the text on; what follows them are the arguments."""
    flags: list[Flag] = []
    text = node.text
    while True:
        while offset < len(text) and text[offset].isspace():
            offset += 1
        if not text.startswith("--", offset):
            break
        word, end = _flag_word(text, offset)
        if word == "--":  # ends the flags, and is not an argument
            offset = end
            while offset < len(text) and text[offset].isspace():
                offset += 1
            break
        match = _FLAG_NAME.match(word)
        if match is not None:
            flags.append(Flag(match[1], word[match.end() :] if match[2] else None, offset))
        offset = end
    return replace(node, flags=tuple(flags), arguments=text[offset:].strip(), arguments_offset=offset)


def _flag_word(text: str, at: int) -> tuple[str, int]:
    """Read one word, quotes and backslashes taken off; a flag's backslash is one whatever the escape directive says."""
    word, quote = "", ""
    while at < len(text):
        character = text[at]
        if not quote and character.isspace():
            break
        at += 1
        if character == "\\":
            word += text[at : at + 1]
            at += 1
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        else:
            word += character
    return word, at


def _openings(node: Node, escape: str) -> list[Opening]:
    """Return the here-documents a line announces, in order."""
    rest, keyword = node.arguments, node.keyword
    if keyword == "ONBUILD":
        keyword, _, rest = rest.partition(" ")
    if keyword.upper() not in _TAKES_HEREDOCS or rest.startswith("["):
        return []
    return [found for _, found in openings(rest, escape) if found is not None]


def _with_heredocs(node: Node, heredocs: list[Heredoc]) -> Node:
    last = heredocs[-1].range.last
    return replace(node, heredocs=tuple(heredocs), range=Range(node.range.first, last))
