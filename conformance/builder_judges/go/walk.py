"""Statements of Go, carried out: one `Walk` for each call of a function."""

from collections.abc import Callable
from typing import Any

from builder_judges.go.expressions import Expressions, Function, Program, binary
from builder_judges.go.nodes import Node, children, text
from builder_judges.go.values import Failed, Scope, Struct, Unsupported, dereferenced, same, store


class Return(Exception):
    """A return statement on its way out of the function."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Break(Exception):
    """A break on its way out of the loop."""


class Continue(Exception):
    """A continue, of the loop with that label if there is one."""

    def __init__(self, label: str = "") -> None:
        self.label = label


class Walk(Expressions):
    """One call in progress."""

    def __init__(self, suite: Program, scope: Scope) -> None:
        super().__init__(suite, scope)
        self.deferred: list[Callable[[], Any]] = []
        self.results: list[str] = []
        self.failed_at = 0
        self.label = ""

    # Calls

    def bind(self, function: Function, arguments: tuple[Any, ...]) -> None:
        names: list[tuple[str, bool]] = []
        receiver = function.node.child_by_field_name("receiver")
        if receiver is not None:
            name = children(receiver)[0].child_by_field_name("name")
            if name is not None:
                self.scope.names[text(name)] = function.receiver
        for declared in children(function.node.child_by_field_name("parameters")):
            found = declared.children_by_field_name("name") or [None]
            names += [(text(n) if n else "_", declared.type == "variadic_parameter_declaration") for n in found]
        rest = list(arguments)
        for name, variadic in names:
            self.scope.names[name] = rest if variadic else rest.pop(0) if rest else None
        result = function.node.child_by_field_name("result")
        if result is not None and result.type == "parameter_list":
            for declared in children(result):
                for found in declared.children_by_field_name("name"):
                    self.results.append(text(found))
                    self.scope.names[text(found)] = None

    def named_results(self, _: Node) -> Any:
        values = tuple(self.scope.names[name] for name in self.results)
        return values[0] if len(values) == 1 else values or None

    # Statements

    def block(self, node: Node | None, scope: Scope) -> None:
        for statement in children(node):
            self.suite.line = statement.start_point[0] + 1
            self.statement(statement, scope)

    def statement(self, node: Node, scope: Scope) -> None:
        handler = getattr(self, f"_{node.type}", None)
        if handler is None:
            raise Unsupported(f"a {node.type.replace('_', ' ')}")
        handler(node, scope)

    def _comment(self, node: Node, scope: Scope) -> None:
        pass

    _empty_statement = _type_declaration_local = _comment

    def _type_declaration(self, node: Node, scope: Scope) -> None:
        self.suite.declare_types(node)

    def _block(self, node: Node, scope: Scope) -> None:
        self.block(node, Scope(scope))

    def _labeled_statement(self, node: Node, scope: Scope) -> None:
        """A loop that `continue LABEL` inside of it goes on with: its body is told the name."""
        self.label = text(children(node)[0])
        self.statement(children(node)[-1], scope)

    def _expression_statement(self, node: Node, scope: Scope) -> None:
        self.value(children(node)[0], scope)

    def _return_statement(self, node: Node, scope: Scope) -> None:
        found = children(node)
        if not found:
            raise Return(self.named_results(node))
        raise Return(self._several(found[0], scope))

    def _several(self, node: Node, scope: Scope) -> Any:
        values = [self.value(each, scope) for each in (children(node) if node.type == "expression_list" else [node])]
        return values[0] if len(values) == 1 else tuple(values)

    def _break_statement(self, node: Node, scope: Scope) -> None:
        raise Break

    def _continue_statement(self, node: Node, scope: Scope) -> None:
        label = children(node)
        raise Continue(text(label[0]) if label else "")

    def _defer_statement(self, node: Node, scope: Scope) -> None:
        call = children(node)[0]
        self.deferred.append(lambda: self.value(call, scope))

    def _go_statement(self, node: Node, scope: Scope) -> None:
        raise Unsupported("a goroutine")

    def _short_var_declaration(self, node: Node, scope: Scope) -> None:
        targets = children(node.child_by_field_name("left"))
        values = self._right(node, scope, len(targets))
        for target, value in zip(targets, values, strict=True):
            scope.names[text(target)] = value

    def _right(self, node: Node, scope: Scope, count: int) -> list[Any]:
        right = children(node.child_by_field_name("right") or node.child_by_field_name("value"))
        if count == 2 and len(right) == 1:
            return self._two(right[0], scope)
        if len(right) == 1 and count > 1:
            return list(self.value(right[0], scope))
        return [self.value(each, scope) for each in right]

    def _two(self, node: Node, scope: Scope) -> list[Any]:
        """The forms with `ok`, and calls that return two."""
        if node.type == "index_expression":
            values = self.value(node.child_by_field_name("operand"), scope) or {}
            key = self.value(node.child_by_field_name("index"), scope)
            return [values.get(key), key in values]
        if node.type == "type_assertion_expression":
            value = self.value(node.child_by_field_name("operand"), scope)
            return [value, value is not None]
        return list(self.value(node, scope))

    def _assignment_statement(self, node: Node, scope: Scope) -> None:
        targets = children(node.child_by_field_name("left"))
        operator = text(node.child_by_field_name("operator"))
        if operator != "=":
            right = self.value(children(node.child_by_field_name("right"))[0], scope)
            left = self.value(targets[0], scope)
            self.assign(targets[0], binary(operator[:-1], left, right), scope)
            return
        for target, value in zip(targets, self._right(node, scope, len(targets)), strict=True):
            self.assign(target, value, scope)

    def _inc_statement(self, node: Node, scope: Scope) -> None:
        self.assign(children(node)[0], self.value(children(node)[0], scope) + 1, scope)

    def _dec_statement(self, node: Node, scope: Scope) -> None:
        self.assign(children(node)[0], self.value(children(node)[0], scope) - 1, scope)

    def assign(self, target: Node, value: Any, scope: Scope) -> None:
        if target.type == "identifier":
            name = text(target)
            if name != "_":
                (scope.find(name) or scope).names[name] = value
        elif target.type == "selector_expression":
            owner = dereferenced(self.value(target.child_by_field_name("operand"), scope))
            name = text(target.child_by_field_name("field"))
            if isinstance(owner, Struct):
                owner.fields[name] = value
            else:
                setattr(owner, name, value)
        elif target.type == "index_expression":
            owner = dereferenced(self.value(target.child_by_field_name("operand"), scope))
            owner[self.value(target.child_by_field_name("index"), scope)] = value
        elif target.type == "unary_expression":
            store(self.value(target.child_by_field_name("operand"), scope), value)
        elif target.type == "parenthesized_expression":
            self.assign(children(target)[0], value, scope)
        else:
            raise Unsupported(f"an assignment to a {target.type}")

    def _var_declaration(self, node: Node, scope: Scope) -> None:
        for spec in children(node):
            for each in children(spec) if spec.type == "var_spec_list" else [spec]:
                names = each.children_by_field_name("name")
                values = self._right(each, scope, len(names)) if each.child_by_field_name("value") else None
                written = each.child_by_field_name("type")
                for number, name in enumerate(names):
                    empty = self.zero_of(self.type(written)) if written is not None and values is None else None
                    scope.names[text(name)] = values[number] if values is not None else empty

    def _const_declaration(self, node: Node, scope: Scope) -> None:
        previous: Node | None = None
        for iota, spec in enumerate(children(node)):
            if spec.type != "const_spec":
                continue
            previous = spec.child_by_field_name("value") or previous
            inner = Scope(scope)
            inner.names["iota"] = iota
            for name, value in zip(spec.children_by_field_name("name"), children(previous), strict=False):
                scope.names[text(name)] = self.value(value, inner)

    def _if_statement(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        first = node.child_by_field_name("initializer")
        if first is not None:
            self.statement(first, inner)
        if self.value(node.child_by_field_name("condition"), inner):
            self.block(node.child_by_field_name("consequence"), Scope(inner))
        else:
            other = node.child_by_field_name("alternative")
            if other is not None:
                self.statement(other, inner)

    def _for_statement(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        inner.label, self.label = self.label, ""
        header = next((c for c in children(node) if c.type != "block"), None)
        body = node.child_by_field_name("body")
        if header is not None and header.type == "range_clause":
            self._range(header, body, inner)
            return
        update = None
        condition = header
        if header is not None and header.type == "for_clause":
            first = header.child_by_field_name("initializer")
            condition, update = header.child_by_field_name("condition"), header.child_by_field_name("update")
            if first is not None:
                self.statement(first, inner)
        for _ in range(100_000):
            if condition is not None and not self.value(condition, inner):
                return
            if self._once(body, Scope(inner)):
                return
            if update is not None:
                self.statement(update, inner)
        raise Failed("a loop without an end")

    def _range(self, header: Node, body: Node | None, scope: Scope) -> None:
        values = dereferenced(self.value(header.child_by_field_name("right"), scope))
        pairs: Any
        if isinstance(values, int):
            pairs = ((number, None) for number in range(values))
        else:
            pairs = values.items() if isinstance(values, dict) else enumerate(values or ())
        targets = children(header.child_by_field_name("left"))
        declared = any(c.type == ":=" for c in header.children)
        for pair in list(pairs):
            inner = Scope(scope)
            for target, value in zip(targets, pair, strict=False):
                if declared:
                    inner.names[text(target)] = value
                else:
                    self.assign(target, value, inner)
            if self._once(body, inner):
                return

    def _once(self, body: Node | None, scope: Scope) -> bool:
        """Run a loop's body; True when it breaks."""
        try:
            self.block(body, scope)
        except Break:
            return True
        except Continue as onward:
            loop = scope.parent if scope.parent is not None and not scope.label else scope
            if onward.label and onward.label != loop.label:
                raise
        return False

    def _select_statement(self, node: Node, scope: Scope) -> None:
        """Nothing runs beside the test here, so no channel has anything to say: the default is what happens."""
        default = next((case for case in children(node) if case.type == "default_case"), None)
        if default is None:
            raise Unsupported("a wait for a channel")
        self.block(default, Scope(scope))

    def _expression_switch_statement(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        first = node.child_by_field_name("initializer")
        if first is not None:
            self.statement(first, inner)
        value = node.child_by_field_name("value")
        wanted = self.value(value, inner) if value is not None else True
        chosen = None
        for case in children(node):
            if case.type == "default_case" and chosen is None:
                chosen = case
            elif any(same(wanted, self.value(v, inner)) for v in children(case.child_by_field_name("value"))):
                chosen = case
                break
        if chosen is not None:
            skip = chosen.child_by_field_name("value")
            try:
                for statement in children(chosen):
                    if skip is None or statement.id != skip.id:
                        self.suite.line = statement.start_point[0] + 1
                        self.statement(statement, inner)
            except Break:
                pass
