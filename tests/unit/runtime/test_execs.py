"""A process that joins a container, as the shim sees it, with a channel and no process behind it."""

from typing import Any

from kestrel.runtime import channel, loop
from kestrel.runtime.execs import Exec


def test_an_end_that_was_reaped_before_the_pid_was_known_is_not_lost() -> None:
    told: list[Any] = []
    events = loop.Loop()
    joining = Exec(
        events,
        lambda result, error, _descriptors: told.append(("reply", result, error)),
        lambda code: told.append(("ended", code)),
        {77: 9}.get,  # killed, and reaped, while the go-between's message was still in the socket
    )
    ours, theirs = channel.pair()
    joining._channel = channel.Channel(ours)
    events.watch(ours.fileno(), loop.READ, joining._heard)
    with open("/dev/null", "rb") as anything:
        channel.Channel(theirs).send({"pid": 77}, [anything.fileno()])
    theirs.close()
    joining._heard(loop.READ)
    assert told == [("reply", {"pid": 77}, None), ("ended", 137)]
