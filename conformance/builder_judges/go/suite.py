"""Go's test functions, carried out here: what a suite does to a builder happens to ours, with the suite's own words.

A file is parsed with tree-sitter and walked. What the walk does not know raises `Unsupported`: the case is then
skipped by name, never guessed.

    suite = Suite(packages, builtins)    # what `import` gives: {"os": Package(...), ...}, and names that stand for
    suite.load(path)                     # functions of the suite's own
    suite.call("testCopyChown", t, sb)
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from builder_judges.go.expressions import BUILTINS, Function
from builder_judges.go.nodes import Node, children, parse, text
from builder_judges.go.values import Package, Scope, Type, Unsupported
from builder_judges.go.walk import Return, Walk
from builder_judges.golang import unquote


class Suite:
    """The functions, types and constants of one Go package."""

    def __init__(self, packages: Mapping[str, Package], builtins: Mapping[str, Any]) -> None:
        self.packages = packages
        self.universe = Scope()
        self.universe.names.update({**BUILTINS, **builtins})
        self.methods: dict[tuple[str, str], Node] = {}
        self.types: dict[str, Type] = {}
        self.scope_of: dict[int, Scope] = {}
        self.package = Scope(self.universe)
        self.line = 0
        self.text_type: Callable[[str], Any] | None = None
        """What methods of strings are looked up in: types such as digest.Digest are plain strings here."""

    def load(self, path: Path) -> list[str]:
        """Read a file and return the names of its functions in order."""
        root = parse(path)
        scope = Scope(self.package)
        names: list[str] = []
        self._imports(root, scope)
        for node in children(root):
            if node.type == "function_declaration":
                name = text(node.child_by_field_name("name"))
                if name not in self.universe.names:  # what is given stands for the suite's own
                    self.package.names[name] = Function(node, scope)
                names.append(name)
            elif node.type == "method_declaration":
                receiver = children(node.child_by_field_name("receiver"))[0]
                owner = text(receiver.child_by_field_name("type")).lstrip("*")
                self.methods[owner, text(node.child_by_field_name("name"))] = node
                self.scope_of[node.id] = scope
            elif node.type == "type_declaration":
                self.declare_types(node)
            elif node.type in ("const_declaration", "var_declaration"):
                try:
                    declared = Scope(scope)
                    Walk(self, scope).statement(node, declared)
                    self.package.names.update(declared.names)
                except (Unsupported, TypeError, AttributeError):
                    continue  # asked for later, it is an unknown name
        return names

    def _imports(self, root: Node, scope: Scope) -> None:
        specs = [n for d in root.named_children if d.type == "import_declaration" for n in _specs(d)]
        for spec in specs:
            path = unquote(text(spec.child_by_field_name("path")))
            name = spec.child_by_field_name("name")
            parts = path.split("/")
            last = parts[-2] if parts[-1][:1] == "v" and parts[-1][1:].isdigit() else parts[-1]
            alias = text(name) if name is not None else last.removeprefix("go-")
            scope.names[alias] = self.packages.get(last, Package(last, {}))

    def declare_types(self, node: Node) -> None:
        for spec in children(node):
            if spec.type == "type_spec":
                name = text(spec.child_by_field_name("name"))
                written = Walk(self, self.package).type(spec.child_by_field_name("type"))
                self.types[name] = Type(name, written.element, written.fields, written.make)

    def call(self, name: str, *arguments: Any) -> Any:
        return self.apply(self.package.names[name], *arguments)

    def apply(self, function: Any, *arguments: Any) -> Any:
        """Call what a Go expression came to."""
        if not isinstance(function, Function):
            if not callable(function):
                raise Unsupported(f"a call of {function!r}")
            return function(*arguments)
        scope = Scope(function.scope)
        walk = Walk(self, scope)
        walk.bind(function, arguments)
        try:
            try:
                walk.block(function.node.child_by_field_name("body"), scope)
            except Return as returned:
                return returned.value
            except Exception:
                walk.failed_at = self.line
                raise
            result = function.node.child_by_field_name("result")
            return walk.named_results(result) if result is not None else None
        finally:
            for deferred in reversed(walk.deferred):
                deferred()
            self.line = walk.failed_at or self.line


def _specs(node: Node) -> Iterator[Node]:
    for child in node.named_children:
        if child.type == "import_spec":
            yield child
        else:
            yield from _specs(child)
