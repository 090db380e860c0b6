"""testing and testify: assertions, and what belongs to one case."""

import json as python_json
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from builder_judges.go.library.text import formatted, is_error
from builder_judges.go.values import Failed, Message, Native, Package, Skipped, Struct, dereferenced, same, zero


def _said(values: tuple[Any, ...]) -> str:
    return f" ({formatted(*map(_text, values))})" if values and isinstance(values[0], str) else ""


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    words = repr(value.fields if isinstance(value, Struct) else value)
    return words if len(words) < 400 else words[:400] + "..."


def _holds(condition: Callable[..., bool], arguments: int, sentence: str) -> Callable[..., None]:
    def check(_: Any, *given: Any) -> None:
        values = [dereferenced(each) for each in given[:arguments]]
        if not condition(*values):
            raise Failed(f"{sentence}: {', '.join(map(_shown, values))}{_said(given[arguments:])}")

    return check


def _no_error(_: Any, error: Any, *more: Any) -> None:
    if error is not None:
        raise Failed(f"{getattr(error, 'text', error)}{_said(more)}")


def _error(_: Any, error: Any, *more: Any) -> None:
    if error is None:
        raise Failed(f"no error where one is due{_said(more)}")


def _contains(values: Any, part: Any) -> bool:
    return (
        isinstance(values, Message) or any(same(part, v) for v in values)
        if not isinstance(values, str)
        else (isinstance(values, Message) or part in values)
    )


def _condition(t: "Testing", function: Any, *more: Any) -> None:
    if not t.apply(function):
        raise Failed(f"a condition does not hold{_said(more)}")


def _fail(_: Any, *more: Any) -> None:
    raise Failed(_said(more) or "the suite says so")


_CHECKS: dict[str, Callable[..., None]] = {
    "NoError": _no_error,
    "Error": _error,
    "ErrorContains": _error,
    "ErrorIs": _holds(is_error, 2, "another error"),
    "Equal": _holds(same, 2, "expected and seen differ"),
    "EqualValues": _holds(same, 2, "expected and seen differ"),
    "NotEqual": _holds(lambda a, b: not same(a, b), 2, "the same"),
    "True": _holds(bool, 1, "not true"),
    "False": _holds(lambda a: not a, 1, "not false"),
    "Nil": _holds(lambda a: a is None, 1, "not nil"),
    "NotNil": _holds(lambda a: a is not None, 1, "nil"),
    "Empty": _holds(zero, 1, "not empty"),
    "NotEmpty": _holds(lambda a: not zero(a), 1, "empty"),
    "Zero": _holds(zero, 1, "not zero"),
    "NotZero": _holds(lambda a: not zero(a), 1, "zero"),
    "Len": _holds(lambda values, count: len(values or ()) == count, 2, "another length"),
    "Contains": _holds(_contains, 2, "not in it"),
    "NotContains": _holds(lambda values, part: part not in values, 2, "in it"),
    "Greater": _holds(lambda a, b: a > b, 2, "not greater"),
    "GreaterOrEqual": _holds(lambda a, b: a >= b, 2, "not greater or equal"),
    "Less": _holds(lambda a, b: a < b, 2, "not less"),
    "LessOrEqual": _holds(lambda a, b: a <= b, 2, "not less or equal"),
    "Regexp": _holds(
        lambda pattern, text: isinstance(text, Message) or re.search(pattern, text) is not None, 2, "no match"
    ),
    "ElementsMatch": _holds(lambda a, b: sorted(map(repr, a or [])) == sorted(map(repr, b or [])), 2, "others"),
    "JSONEq": _holds(lambda a, b: python_json.loads(a) == python_json.loads(b), 2, "expected and seen differ"),
    "Fail": _fail,
    "Condition": _condition,
}
require = Package("require", {**_CHECKS, **{f"{name}f": check for name, check in _CHECKS.items()}})


class Testing(Native):
    """`testing.T` of one case: its directories and what it started go when the case ends."""

    def __init__(self, apply: Callable[..., Any]) -> None:
        self.apply = apply
        self._cleanups: list[Callable[[], Any]] = []

    def TempDir(self) -> str:
        path = tempfile.mkdtemp(prefix="ktest-", dir="/var/tmp")
        self._cleanups.append(lambda: shutil.rmtree(path, ignore_errors=True))
        return path

    def Run(self, name: str, function: Any) -> bool:
        try:
            self.apply(function, self)
        except Skipped:
            return True
        except Failed as failure:
            raise Failed(f"{name}: {failure}") from None
        return True

    def Cleanup(self, function: Any) -> None:
        self._cleanups.append(lambda: self.apply(function))

    def Skip(self, *said: Any) -> None:
        raise Skipped(" ".join(map(str, said)))

    SkipNow = Skip

    def Skipf(self, pattern: str, *values: Any) -> None:
        raise Skipped(formatted(pattern, *values))

    def Fatal(self, *said: Any) -> None:
        raise Failed(" ".join(map(str, said)))

    Error = Fatal

    def Fatalf(self, pattern: str, *values: Any) -> None:
        raise Failed(formatted(pattern, *values))

    Errorf = Fatalf

    def Log(self, *_: Any) -> None:
        pass

    Logf = Helper = Parallel = Setenv = Log

    def Context(self) -> None:
        return None

    def Name(self) -> str:
        return "case"

    def Failed(self) -> bool:
        return False

    def finish(self) -> None:
        for cleanup in reversed(self._cleanups):
            cleanup()
