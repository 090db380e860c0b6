"""Which users of the host a sandbox's are."""

from collections.abc import Iterator

import pytest

from kestrel.base.errors import ResourceExhausted
from kestrel.engine import ranges


class Everything(frozenset[int]):
    """All numbers there are."""

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        return iter(())


def test_no_two_sandboxes_have_a_range_in_common() -> None:
    taken: set[int] = set()
    for number in range(2000):
        first = ranges.free(f"{number:012x}", taken)
        assert first not in taken
        taken.add(first)


def test_a_range_that_is_taken_is_passed_over_also_at_the_end_of_the_room() -> None:
    wished = ranges.free("box", frozenset())
    following = ranges.free("box", {wished})
    assert following == (wished + ranges.SIZE if wished + ranges.SIZE <= 1_879_048_191 else ranges.FIRST)
    every = {ranges.FIRST + number * ranges.SIZE for number in range(ranges.COUNT)}
    assert ranges.free("box", every - {ranges.FIRST}) == ranges.FIRST


def test_when_all_are_taken_it_says_so() -> None:
    with pytest.raises(ResourceExhausted, match="ranges of users are taken"):
        ranges.free("box", Everything())


def test_ranges_lie_where_containers_may_have_them() -> None:
    for number in range(1000):
        first = ranges.free(str(number), frozenset())
        assert first % ranges.SIZE == 0
        assert 600_100_000 < first <= first + ranges.SIZE - 1 <= 1_879_048_191


def test_the_hosts_own_users_are_no_range() -> None:
    assert 0 not in ranges.users(0)
    assert list(ranges.users(ranges.FIRST))[:2] == [ranges.FIRST, ranges.FIRST + 1]
