import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument, NotFound
from kestrel.runtime import messages
from kestrel.runtime.channel import HEADER, LIMIT, Channel, Decoder, encode, pair

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.text(), JSON), max_size=4), st.integers(1, 7))
def test_messages_survive_any_cutting_of_the_stream(sent: list[dict[str, object]], step: int) -> None:
    data = b"".join(encode(message) for message in sent)
    decoder, received = Decoder(), []
    for start in range(0, len(data), step):
        received += [message for message, _ in decoder.feed(data[start : start + step])]
    assert received == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_value_error(data: bytes) -> None:
    try:
        Decoder().feed(data)
    except (ValueError, RecursionError):
        pass


@pytest.mark.parametrize("header", [HEADER.pack(LIMIT + 1, 0), HEADER.pack(2, 1000), HEADER.pack(2, 1) + b"{}"])
def test_frames_over_the_limit_or_without_their_descriptors_are_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match="frame"):
        Decoder().feed(header)


def test_descriptors_arrive_with_their_message() -> None:
    ours, theirs = pair()
    left, right = Channel(ours), Channel(theirs)
    reader, writer = os.pipe()
    left.send({"n": 1})
    left.send({"n": 2}, [writer])
    os.close(writer)
    assert right.receive() == ({"n": 1}, [])
    received = right.receive()
    assert received is not None
    assert received[0] == {"n": 2}
    assert not os.get_inheritable(received[1][0])
    os.write(received[1][0], b"through")
    os.close(received[1][0])
    assert os.read(reader, 10) == b"through"
    os.close(reader)
    left.close()
    assert right.receive() is None
    right.close()


def test_an_error_arrives_as_the_kind_it_was() -> None:
    sent = NotFound("no such thing", hint="look elsewhere", exit_code=127)
    received = messages.error_from_json(messages.error_to_json(sent))
    assert type(received) is NotFound
    assert (received.message, received.hint, received.context) == (sent.message, sent.hint, {"exit_code": 127})


def test_a_bug_arrives_as_an_internal_error_with_its_name() -> None:
    received = messages.error_from_json(messages.error_to_json(KeyError("x")))
    assert (received.kind, received.message) == ("internal", "KeyError: 'x'")


def test_a_message_with_unknown_fields_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="bad LogFile message"):
        messages.from_json(messages.LogFile, {"path": "/x", "weird": 1})
