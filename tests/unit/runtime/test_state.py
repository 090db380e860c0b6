from pathlib import Path

import pytest

from kestrel.base.errors import FailedPrecondition
from kestrel.runtime import state
from kestrel.runtime.messages import Exited


def test_an_end_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    ended = Exited(container_id="c", exit_code=137, oom=True, time=12.5)
    state.write_exit(str(tmp_path), ended)
    assert state.read_exit(tmp_path, "c") == ended
    assert state.read_exits(tmp_path) == [ended]
    state.forget_exit(str(tmp_path), "c")
    assert state.read_exit(tmp_path, "c") is None
    state.forget_exit(str(tmp_path), "c")


def test_a_sandbox_without_ends_has_none(tmp_path: Path) -> None:
    assert state.read_exits(tmp_path / "nothing") == []


def test_every_operation_names_the_states_it_is_allowed_in() -> None:
    everything = {state.CREATING, state.CREATED, state.RUNNING, state.PAUSED, state.STOPPED}
    for operation, allowed in state.ALLOWED.items():
        for status in everything - set(allowed):
            with pytest.raises(FailedPrecondition):
                state.require(operation, status, "c")
        for status in allowed:
            state.require(operation, status, "c")


def test_the_sentence_is_one_that_clients_of_runc_know() -> None:
    with pytest.raises(FailedPrecondition, match="container not running"):
        state.require("kill", state.STOPPED, "c")
