from ipaddress import IPv4Network
from typing import Any

import pytest

from kestrel.linux import nftables
from kestrel.network import firewall
from kestrel.network.model import PortMapping

NETWORK = IPv4Network("10.88.0.0/16")
WEB = PortMapping(container_port=80, host_port=8080)
LOCAL = PortMapping(container_port=53, host_port=5353, host_ip="127.0.0.1", protocol="udp")


def test_published_ports_are_elements_of_maps() -> None:
    text = firewall.ruleset("kestrel", "kestrel0", NETWORK, [(WEB, "10.88.0.2"), (LOCAL, "10.88.0.3")])
    assert "elements = { tcp . 8080 : 10.88.0.2 . 80 }" in text
    assert "elements = { 127.0.0.1 . udp . 5353 : 10.88.0.3 . 53 }" in text


def test_publishing_is_one_element_and_withdrawing_takes_it_out() -> None:
    assert firewall.publish("k", [WEB], "10.88.0.2") == (
        "add element ip k published-anywhere { tcp . 8080 : 10.88.0.2 . 80 }"
    )
    assert firewall.withdraw("k", [LOCAL], "10.88.0.3").splitlines()[-1] == (
        "delete element ip k published { 127.0.0.1 . udp . 5353 }"
    )


def test_an_address_that_is_none_never_reaches_the_rules() -> None:
    with pytest.raises(ValueError, match="drop"):
        firewall.publish("k", [PortMapping(container_port=1, host_port=1, host_ip="1.2.3.4 }; drop")], "10.88.0.2")


def chain(**fields: Any) -> dict[str, Any]:
    base = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "type": "filter", "policy": "drop"}
    return {"chain": base | fields}


@pytest.mark.parametrize(
    "fields",
    [{"policy": "accept"}, {"hook": "output"}, {"family": "ip6"}, {"table": "kestrel"}, {"type": "nat"}],
)
def test_chains_that_do_not_concern_us_are_left_alone(fields: dict[str, str]) -> None:
    assert firewall.foreign_drops([chain(**fields)], "kestrel") == []


def test_rules_in_others_chains_are_marked_and_found_again_by_the_mark() -> None:
    drops = firewall.foreign_drops([chain(), chain(family="inet", name="in", hook="input")], "kestrel")
    commands = firewall.open_foreign(drops, "kestrel0", "kestrel0")
    assert commands[0] == 'insert rule ip filter FORWARD iifname "kestrel0" accept comment "kestrel0"'
    assert len(commands) == 4
    rules = [
        {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 7, "comment": "kestrel0"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 8, "comment": "theirs"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 9}},
    ]
    assert firewall.close_foreign(rules, "kestrel0") == ["delete rule ip filter FORWARD handle 7"]


def test_a_missing_library_has_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "LIBRARY", "libnftables-that-is-not-there.so")
    with pytest.raises(nftables.NftablesMissingError, match="cannot be loaded"):
        nftables.Nftables()
