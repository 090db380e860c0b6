"""Which users of the host a sandbox's are."""

from kestrel.engine import ranges


def test_a_sandbox_s_range_is_always_the_same_and_another_s_is_another() -> None:
    first = [ranges.first_id(f"{number:012x}") for number in range(200)]
    assert first == [ranges.first_id(f"{number:012x}") for number in range(200)]
    assert len(set(first)) > 195


def test_ranges_lie_where_containers_may_have_them() -> None:
    for number in range(1000):
        first = ranges.first_id(str(number))
        assert first % ranges.SIZE == 0
        assert 524_288 <= first <= first + ranges.SIZE - 1 <= 1_879_048_191
