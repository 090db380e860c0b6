"""What servers put into WWW-Authenticate, including what they should not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.distribution.challenges import Challenge, parse

BEARER = 'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"'


def test_docker_hubs_form_is_read() -> None:
    [challenge] = parse([BEARER])
    assert challenge.scheme == "bearer"
    assert challenge.parameters["realm"] == "https://auth.example/token"
    assert challenge.scopes == ("repository:a/b:pull,push",)


def test_several_schemes_in_one_field_and_in_several_are_all_found() -> None:
    wanted = ["basic", "bearer", "negotiate"]
    assert [c.scheme for c in parse([f'Basic realm="a, b", {BEARER}, Negotiate'])] == wanted
    assert [c.scheme for c in parse(['Basic realm="a, b"', BEARER, "Negotiate abc=="])] == wanted


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ('BEARER  Realm = "x" , SERVICE=y', {"realm": "x", "service": "y"}),
        (r'Bearer realm="say \"hi\" \\"', {"realm": 'say "hi" \\'}),
        ('Bearer realm="first",realm="second"', {"realm": "first"}),
        ('Bearer realm="https://a/?x=1,2"', {"realm": "https://a/?x=1,2"}),
        ("Bearer", {}),
    ],
)
def test_spaces_cases_quotes_and_repeats(text: str, parameters: dict[str, str]) -> None:
    assert parse([text]) == [Challenge("bearer", parameters)]


@given(st.text(max_size=300))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    for challenge in parse([text]):
        assert challenge.scheme


@pytest.mark.parametrize("text", ['Bearer realm="' + "\\" * 50_000, "a " * 50_000, "a=" * 50_000, ", " * 50_000])
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    begun = time.process_time()
    parse([text])
    assert time.process_time() - begun < 2
