"""What the builder lets go of, and the reason that is given for each thing."""

from typing import Any

from kestrel.build.collect import STEP, Held, Judged, Policy, judge

NOW = 1_000_000.0
DAY = 86400.0


def held(name: str, *, days: float, size: int = 100, **more: Any) -> Held:
    return Held(kind=STEP, name=name, size=size, used=NOW - days * DAY, key=name, **more)


def verdicts(policy: Policy, *things: Held) -> dict[str, Judged]:
    return {each.held.name: each for each in judge(things, policy, NOW)}


def test_what_was_used_lately_stays_and_says_where() -> None:
    found = verdicts(Policy(), held("new", days=1, where="web 3 of /shop:Dockerfile"), held("old", days=8))
    assert (found["new"].removed, found["new"].reason) == (False, "used 24h00m ago by web 3 of /shop:Dockerfile")
    assert (found["old"].removed, found["old"].reason) == (True, "not used for 8d")


def test_a_layer_that_an_image_has_costs_nothing_and_stays() -> None:
    found = verdicts(Policy(), held("old", days=8, image="shop:1"))["old"]
    assert (found.removed, found.cost) == (False, 0)
    assert found.reason == "not used for 8d, but the image shop:1 has its layer: it costs nothing"


def test_everything_goes_but_what_a_running_build_uses() -> None:
    found = verdicts(Policy(everything=True), held("a", days=0, image="shop:1"), held("b", days=9, in_use=True))
    assert found["a"].removed
    assert (found["b"].removed, found["b"].reason) == (False, "a build that runs uses it")


def test_the_least_recently_used_goes_until_the_rest_fits() -> None:
    things = [held("third", days=1), held("first", days=3), held("second", days=2), held("free", days=4, image="i:1")]
    found = verdicts(Policy(ceiling=150), *things)
    assert [name for name, each in found.items() if each.removed] == ["first", "second"]
    assert found["first"].reason == "the least recently used of more than 150B"


def test_a_ceiling_is_no_promise_about_what_is_in_use() -> None:
    found = verdicts(Policy(ceiling=0), held("a", days=1, in_use=True), held("b", days=1))
    assert [name for name, each in found.items() if each.removed] == ["b"]


def test_a_layer_of_two_steps_is_counted_once_for_the_one_used_last() -> None:
    found = verdicts(Policy(ceiling=100), held("a", days=2, layer="x"), held("b", days=1, layer="x"))
    assert (found["a"].cost, found["b"].cost) == (0, 100)
    assert not any(each.removed for each in found.values())
