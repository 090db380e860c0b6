"""Names by pattern, and what grants and conditions make of them."""

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.oci.digest import Digest
from kestrel.registry.access.model import Grant, Principal
from kestrel.registry.access.token_server import granted
from kestrel.registry.conditions import Condition, Mismatch
from kestrel.registry.patterns import check, matches


@pytest.mark.parametrize(
    ("pattern", "name", "covers"),
    [
        ("team/app", "team/app", True),
        ("team/app", "team/apple", False),
        ("team/*", "team/app", True),
        ("team/*", "team/app/part", False),
        ("team/**", "team/app/part", True),
        ("team/**", "team", False),
        ("**", "anything/at/all", True),
        ("*", "a/b", False),
        ("v*", "v1.2-rc", True),
        ("a.b", "axb", False),
        ("*-prod/**", "shop-prod/web/app", True),
    ],
)
def test_a_star_stays_within_one_part_and_two_do_not(pattern: str, name: str, covers: bool) -> None:
    assert matches(pattern, name) is covers


@pytest.mark.parametrize("pattern", ["", "a b", "team/[ab]", "x" * 300, "a\n"])
def test_what_could_match_nothing_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        check(pattern)


def test_who_may_push_may_pull_and_a_token_only_narrows() -> None:
    grant = Grant.parse("alice", "team/**", "push")
    assert Principal("alice", (grant,)).may("pull", "team/app")
    narrowed = Principal("alice", (grant,), scopes={"team/app": frozenset({"pull", "delete"})})
    assert narrowed.may("pull", "team/app")
    assert not narrowed.may("push", "team/app")
    assert not narrowed.may("delete", "team/app")
    assert not narrowed.may("pull", "team/other")


def test_scopes_that_are_not_understood_give_nothing() -> None:
    principal = Principal("alice", (Grant.parse("alice", "team/**", "push"),))
    asked = ["repository:team/app:pull,push", "repository:other:pull", "registry:catalog:*", "nonsense", ""]
    assert granted(principal, asked) == {"team/app": {"pull", "push"}}
    assert granted(principal, ["repository:team/app:*"]) == {"team/app": {"pull", "push"}}


def test_conditions_hold_tags_to_what_was_seen() -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")
    Condition().demand("v1", None)
    Condition(match=f'"{two}", "{one}"').demand("v1", one)
    Condition(none_match="*").demand("v1", None)
    Condition(none_match=f'"{two}"').demand("v1", one)
    for condition, current in (
        (Condition(match=f'"{two}"'), one),
        (Condition(match="*"), None),
        (Condition(none_match="*"), one),
        (Condition(none_match=f'W/"{one}"'), one),
    ):
        with pytest.raises(Mismatch):
            condition.demand("v1", current)
