"""Syntax trees as tree-sitter gives them, and the two things that every walk asks of a node."""

from pathlib import Path

import tree_sitter
import tree_sitter_go

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_go.language()))
Node = tree_sitter.Node


def parse(path: Path) -> Node:
    """Return the tree of a file."""
    return _PARSER.parse(path.read_bytes()).root_node


def text(node: Node) -> str:
    return (node.text or b"").decode()


def children(node: Node | None) -> list[Node]:
    """The named parts of a node, comments left out and lists of statements opened."""
    found: list[Node] = []
    for child in node.named_children if node is not None else ():
        if child.type == "statement_list":
            found += children(child)
        elif child.type != "comment":
            found.append(child)
    return found
