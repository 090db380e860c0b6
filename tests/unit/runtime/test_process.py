from typing import Any

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.linux.capabilities import BITS
from kestrel.runtime.process import environment, parse


def made(**process: Any) -> Any:
    return parse({"args": ["true"], **process})


@pytest.mark.parametrize("value", [-1, 2**32 - 1, 2**40, "0", 1.0, True, None])
def test_an_id_that_is_not_exactly_a_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"process\.user\.uid"):
        made(user={"uid": value, "gid": 0})


@pytest.mark.parametrize("process", [{"args": []}, {"args": ["a\0b"]}, {"cwd": "relative"}, {"env": ["novalue"]}])
def test_what_execve_could_not_carry_out_is_refused(process: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        made(**process)


def test_an_unknown_capability_is_a_warning() -> None:
    process = made(capabilities={"permitted": ["CAP_NEW_IN_2030", "CAP_CHOWN"], "effective": ["CAP_CHOWN"]})
    assert process.warnings == ("ignoring unknown or unavailable capabilities: [CAP_NEW_IN_2030]",)
    assert process.effective == BITS["CAP_CHOWN"]


def test_effective_stays_within_permitted_and_ambient_within_both() -> None:
    process = made(
        capabilities={
            "permitted": ["CAP_CHOWN"],
            "effective": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_CHOWN", "CAP_KILL"],
        }
    )
    assert process.effective == BITS["CAP_CHOWN"]
    assert process.ambient == 0
    assert "capability CAP_KILL is not made effective: it is not permitted" in process.warnings


def test_an_ambient_capability_that_cannot_be_had_is_a_warning() -> None:
    assert made(capabilities={"permitted": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]}).warnings == (
        "can't raise ambient capability CAP_CHOWN: it is not both permitted and inheritable",
    )


def test_an_rlimit_given_twice_or_unknown_is_refused() -> None:
    one = {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}
    with pytest.raises(InvalidArgument, match="twice"):
        made(rlimits=[one, one])
    with pytest.raises(InvalidArgument, match="unknown resource limit"):
        made(rlimits=[{**one, "type": "RLIMIT_WEIRD"}])


@pytest.mark.parametrize(("soft", "hard"), [(200, 100), (2**64 - 1, 100), (-1, 100)])
def test_a_soft_rlimit_above_the_hard_one_is_refused(soft: int, hard: int) -> None:
    with pytest.raises(InvalidArgument, match=f"RLIMIT_NOFILE: soft {soft} is above hard {hard}"):
        made(rlimits=[{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}])


def test_an_rlimit_without_end_is_one_however_it_is_written() -> None:
    limits = made(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 2**63, "hard": -1}]).rlimits
    assert limits == (("RLIMIT_NOFILE", -1, -1),)


def test_the_later_variable_wins_and_home_is_always_set() -> None:
    assert environment(made(env=["A=1", "A=2", "B=x=y"])) == {"A": "2", "B": "x=y", "HOME": "/root"}
    assert environment(made(user={"uid": 5, "gid": 0}, env=["HOME=/h"])) == {"HOME": "/h"}
