from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from kestrel.network import ipam


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "x.db")
    opened.migrate(ipam.MIGRATIONS)
    yield opened
    opened.close()


def test_the_first_candidate_nobody_uses_is_chosen() -> None:
    used = [IPv4Network("10.88.0.0/24"), IPv4Network("10.89.4.4/32")]
    assert ipam.choose("", None, used) == IPv4Network("10.90.0.0/16")


def test_a_network_from_before_is_kept_while_it_is_free() -> None:
    kept = IPv4Network("10.95.0.0/16")
    assert ipam.choose("", kept, []) == kept
    assert ipam.choose("", kept, [IPv4Network("10.95.1.0/24")]) == IPv4Network("10.88.0.0/16")


def test_a_named_network_that_collides_is_refused_with_what_it_collides_with() -> None:
    with pytest.raises(FailedPrecondition, match=r"10\.0\.0\.0/8"):
        ipam.choose("10.1.0.0/16", None, [IPv4Network("10.0.0.0/8")])


@pytest.mark.parametrize("text", ["10.1.0.1/16", "nonsense", "10.0.0.0/30", "::/64"])
def test_what_is_no_useful_network_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ipam.choose(text, None, [])


def test_no_free_candidate_is_said() -> None:
    with pytest.raises(FailedPrecondition, match="collide"):
        ipam.choose("", None, [IPv4Network("0.0.0.0/0")])


def test_addresses_follow_each_other_and_come_back_last(database: Database) -> None:
    leases = ipam.Leases(database, IPv4Network("10.88.0.0/29"))
    assert [str(leases.take(name).address) for name in "abc"] == ["10.88.0.2", "10.88.0.3", "10.88.0.4"]
    assert leases.give_back("a")
    assert [str(leases.take(name).address) for name in "defg"[:2]] == ["10.88.0.5", "10.88.0.6"]
    assert str(leases.take("f").address) == "10.88.0.2"
    with pytest.raises(ResourceExhausted, match="all 5 addresses"):
        leases.take("g")


def test_a_lease_is_found_again_by_a_new_daemon(database: Database) -> None:
    network = IPv4Network("10.88.0.0/16")
    first = ipam.Leases(database, network).take("a", '["web"]', "[]")
    again = ipam.Leases(database, network)
    assert again.take("a", '["web"]', "[]") == first
    assert again.all() == [first]
    assert str(again.take("b").address) == "10.88.0.3"


def test_giving_back_what_nobody_has_says_so(database: Database) -> None:
    assert not ipam.Leases(database, IPv4Network("10.88.0.0/16")).give_back("x")


def test_the_hardware_address_goes_with_the_address() -> None:
    assert ipam.mac(IPv4Address("10.88.0.2")) == "02:6b:0a:58:00:02"
