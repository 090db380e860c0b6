import dataclasses
import pickle

import pytest

from kestrel.base.values import asdict, dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    tags: "tuple[str, ...]" = field(default=(), compare=False)
    more: "dict[str, int]" = field(default_factory=dict)

    def moved(self) -> "Point":
        return replace(self, x=self.x + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    ends: tuple[Point, ...]


def test_arguments_are_taken_by_place_and_by_name_and_defaults_fill_the_rest() -> None:
    assert repr(Point(1, more={"a": 1})) == "Point(x=1, y=2, tags=(), more={'a': 1})"
    assert Point(x=1).more is not Point(x=1).more


@pytest.mark.parametrize("words", [{}, {"x": 1, "z": 2}])
def test_a_missing_or_unknown_argument_is_an_error(words: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="argument"):
        Point(**words)
    with pytest.raises(TypeError, match="by name"):
        Line((Point(1),))  # type: ignore[misc] # this is what is tested
    with pytest.raises(TypeError, match="twice"):
        Point(1, x=2)


def test_equality_is_by_value_but_not_by_what_is_not_compared() -> None:
    assert Point(1, tags=("a",)) == Point(1, tags=("b",)) != Point(2)
    assert Point(1) != (1, 2)


def test_a_value_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="x"):
        Point(1).x = 2  # type: ignore[misc] # this is what is tested
    assert Point(1).moved() == Point(2)


def test_the_standard_librarys_functions_take_them_for_dataclasses() -> None:
    line = Line(ends=(Point(1),))
    assert [entry.name for entry in dataclasses.fields(line)] == ["ends"]
    assert dataclasses.replace(Point(1), y=5) == Point(1, 5)
    assert dataclasses.asdict(line) == asdict(line) == {"ends": ({"x": 1, "y": 2, "tags": (), "more": {}},)}
    assert pickle.loads(pickle.dumps(line)) == line
