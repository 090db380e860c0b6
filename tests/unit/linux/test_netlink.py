"""rtnetlink without rights: reading, and errors in the kernel's words."""

import errno
import os

import pytest

from kestrel.linux import netlink


def test_the_loopback_is_found_with_its_address() -> None:
    with netlink.Socket() as links:
        loopback = links.link("lo")
        assert loopback is not None
        assert loopback.index == 1
        assert loopback in links.links()
        if loopback.up:
            assert any(a.address == "127.0.0.1" and a.prefix == 8 for a in links.addresses())


def test_a_link_that_is_not_there_is_none() -> None:
    with netlink.Socket() as links:
        assert links.link("ktest-nothing") is None


def test_every_request_of_a_batch_gets_its_own_answer_in_order() -> None:
    with netlink.Socket() as links:
        errors = links.attempt(netlink.delete_link("ktest-one"), netlink.set_up(1), netlink.delete_link("ktest-two"))
    expected = errno.ENODEV if os.geteuid() == 0 else errno.EPERM
    assert errors[0] is not None
    assert errors[0].errno == expected
    assert str(errors[0]).startswith("removing ktest-one: ")
    assert (errors[1] is None) == (os.geteuid() == 0)
    assert errors[2] is not None
    assert "ktest-two" in str(errors[2])


def test_the_first_refusal_is_raised() -> None:
    with netlink.Socket() as links, pytest.raises(netlink.NetlinkError, match="ktest-one"):
        links.run(netlink.delete_link("ktest-one"), netlink.delete_link("ktest-two"))


def test_attributes_are_padded_and_read_back() -> None:
    packed = netlink.attribute(3, b"lo\0") + netlink.attribute(4 | 0x8000, b"\1\2\3\4")
    assert len(packed) % 4 == 0
    assert netlink.attributes(packed) == {3: b"lo\0", 4: b"\1\2\3\4"}


@pytest.mark.parametrize("data", [b"", b"\1", b"\0\0\0\0", b"\xff\xff\1\0abc"])
def test_broken_attributes_end_the_reading(data: bytes) -> None:
    assert isinstance(netlink.attributes(data), dict)
