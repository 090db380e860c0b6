"""What a process that joins a container and its go-between say, in whichever order."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kestrel.base.errors import Internal
from kestrel.runtime import cold
from kestrel.runtime.channel import Channel, pair


def followed(says: list[dict[str, Any]], pause: float = 0.0) -> cold.Made:
    """Follow a process (this one) that is ready, beside a go-between which says something after a while."""
    ours, theirs = (Channel(end) for end in pair())
    go_between = os.fork()
    if go_between == 0:
        time.sleep(pause)
        for message in says:
            theirs.send(message, [os.pidfd_open(os.getppid())])
        os._exit(0)
    theirs.send({"ready": True, "warnings": ["slow"]})

    def heard() -> Iterator[tuple[dict[str, Any], list[int]]]:
        for message, descriptors in cold._heard(ours, go_between):
            yield message, descriptors
            if "ready" in message:
                assert theirs.receive() == ({"go": True}, [])
                theirs.close()  # as it does when its program runs

    try:
        return cold._joined(ours, heard(), cold.Wishes(), lambda _pid, _told: None)
    finally:
        ours.close()
        theirs.close()
        os.waitpid(go_between, 0)


@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_process_that_is_ready_before_it_is_known_waits_to_be(pause: float) -> None:
    made = followed([{"pid": 77}], pause)
    os.close(made.pidfd)
    assert (made.pid, made.warnings) == (77, ("slow",))


def test_a_process_that_nobody_knows_of_does_not_go_on() -> None:
    with pytest.raises(Internal, match="ended before its program ran"):
        followed([])
