"""Stream channels over WebSocket messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.http.channels import (
    PROTOCOLS,
    V1,
    V4,
    V4_BASE64,
    V5,
    ChannelError,
    Channels,
    Closed,
    Frame,
    negotiate,
    port_channels,
    port_greeting,
)


@given(st.sampled_from(PROTOCOLS), st.integers(0, 9), st.binary(max_size=100))
def test_bytes_of_a_channel_survive_in_every_protocol(protocol: str, channel: int, data: bytes) -> None:
    channels = Channels(protocol)
    message = channels.encode(channel, data)
    assert channels.decode(message) == Frame(channel, data)
    if channels.text:
        assert channels.decode(message.decode("ascii")) == Frame(channel, data)


@given(st.sampled_from(PROTOCOLS), st.binary(max_size=50) | st.text(max_size=50))
def test_hostile_messages_raise_nothing_but_a_channel_error(protocol: str, message: bytes | str) -> None:
    try:
        Channels(protocol).decode(message)
    except ChannelError:
        pass


def test_only_version_five_closes_channels() -> None:
    assert Channels(V5).decode(b"\xff\x00") == Closed(0)
    assert Channels(V5).encode_close(0) == b"\xff\x00"
    assert Channels(V4).decode(b"\xff\x00") == Frame(255, b"\x00")
    with pytest.raises(ChannelError, match="close message"):
        Channels(V5).decode(b"\xff")


def test_the_best_protocol_of_both_is_chosen() -> None:
    assert negotiate([V4, V5]) == V5
    assert negotiate([V4_BASE64, V1]) == V4_BASE64
    assert negotiate([]) == ""
    assert negotiate(["v9.channel.k8s.io"]) is None


def test_the_error_channel_carries_a_status_from_version_four_on() -> None:
    assert [Channels(p).structured for p in (V5, V4, V4_BASE64, V1, "")] == [True, True, True, False, False]


def test_ports_have_two_channels_each_that_begin_with_the_port() -> None:
    assert [port_channels(index) for index in range(3)] == [(0, 1), (2, 3), (4, 5)]
    assert port_greeting(8080) == b"\x90\x1f"
