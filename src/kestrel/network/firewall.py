"""The firewall as text: one nft table of ours, made of a few rules and maps that are filled and emptied.

The table holds everything: address translation both ways, what may be forwarded, and what must not come from a
container. A published port is one element of a map, so it costs the same however many there are.

Other tables on the host are judged as well as ours: a packet goes through if *every* base chain lets it through, so
an `accept` here cannot overrule a `drop` elsewhere (`man 8 nft`, "CHAINS"). Where a foreign chain drops by policy, as
docker's and ufw's FORWARD do, rules for our bridge are put at its head, marked with our name, and taken out by
`down`. What cannot be seen through nftables is said in `notes`.

Ports published on the loopback: the kernel drops packets from 127.0.0.0/8 that leave through another link unless
`route_localnet` is on for it (Documentation/networking/ip-sysctl.rst). It is on for our bridge only, and the `guard`
chain drops what a container sends to 127.0.0.0/8, which that switch would otherwise let in (CVE-2020-8558). It also
keeps the bridge's own address, and with it our resolver, from everybody who is not on the bridge: Linux answers for
any of its addresses on any link.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from kestrel.network.model import PortMapping

FAMILY = "ip"


def ruleset(table: str, bridge: str, network: IPv4Network, published: Iterable[tuple[PortMapping, str]]) -> str:
    """Return the commands that put our table in place, whatever was there before; `published` are (port, address)."""
    elements = _elements(published)
    # `add` before `delete`, so that it does not matter whether the table was there.
    return f"""\
add table {FAMILY} {table}
delete table {FAMILY} {table}
table {FAMILY} {table} {{
	map published {{
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
{_block(elements["published"])}	}}
	map published-anywhere {{
		type inet_proto . inet_service : ipv4_addr . inet_service
{_block(elements["published-anywhere"])}	}}
	chain publish {{
		dnat ip to ip daddr . meta l4proto . th dport map @published
		dnat ip to meta l4proto . th dport map @published-anywhere
	}}
	chain guard {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{bridge}" ip daddr 127.0.0.0/8 counter drop
		iifname != {{ "lo", "{bridge}" }} ip daddr {network} fib daddr type local counter drop
	}}
	chain arriving {{
		type nat hook prerouting priority dstnat; policy accept;
		meta l4proto {{ tcp, udp }} fib daddr type local goto publish
	}}
	chain local {{
		type nat hook output priority -100; policy accept;
		meta l4proto {{ tcp, udp }} fib daddr type local goto publish
	}}
	chain forwarding {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" accept
		oifname "{bridge}" ct state established,related accept
		oifname "{bridge}" ct status dnat accept
		oifname "{bridge}" counter drop
	}}
	chain leaving {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {network} oifname != "{bridge}" masquerade
		ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
		ip saddr {network} oifname "{bridge}" ct status dnat masquerade
	}}
}}
"""


def _block(elements: Sequence[str]) -> str:
    return f"\t\telements = {{ {', '.join(elements)} }}\n" if elements else ""


def _elements(published: Iterable[tuple[PortMapping, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"published": [], "published-anywhere": []}
    for port, address in published:
        key, target = _element(port, address)
        found[_map(port)].append(f"{key} : {target}")
    return found


def _map(port: PortMapping) -> str:
    return "published" if port.host_ip else "published-anywhere"


def _element(port: PortMapping, address: str) -> tuple[str, str]:
    key = f"{port.protocol} . {port.host_port}"
    if port.host_ip:
        key = f"{IPv4Address(port.host_ip)} . {key}"
    return key, f"{IPv4Address(address)} . {port.container_port}"


def publish(table: str, ports: Iterable[PortMapping], address: str) -> str:
    """Return the commands that lead ports of the host to an address."""
    lines = []
    for port in ports:
        key, target = _element(port, address)
        lines.append(f"add element {FAMILY} {table} {_map(port)} {{ {key} : {target} }}")
    return "\n".join(lines)


def withdraw(table: str, ports: Iterable[PortMapping], address: str) -> str:
    """Return the commands that take ports out again; an element that is gone already does no harm."""
    lines = []
    for port in ports:
        key, target = _element(port, address)
        # `destroy` is too new for nft 1.0.6; adding before deleting says the same.
        lines.append(f"add element {FAMILY} {table} {_map(port)} {{ {key} : {target} }}")
        lines.append(f"delete element {FAMILY} {table} {_map(port)} {{ {key} }}")
    return "\n".join(lines)


def remove(table: str) -> str:
    """Return the commands that take our table away, also when it is not there."""
    return f"add table {FAMILY} {table}\ndelete table {FAMILY} {table}\n"


def foreign_drops(items: Sequence[dict[str, Any]], table: str) -> list[tuple[str, str, str, str]]:
    """Return (family, table, chain, hook) of others' filter chains that drop IPv4 by policy; `items` is `list ruleset`.

    Only `forward` and `input` matter: through the first go the containers' packets, through the second their
    questions to our resolver.
    """
    return [
        (chain["family"], chain["table"], chain["name"], chain["hook"])
        for item in items
        if (chain := item.get("chain"))
        and chain.get("policy") == "drop"
        and chain.get("hook") in ("forward", "input")
        and chain.get("type") == "filter"
        and chain["family"] in ("ip", "inet")
        and not (chain["family"] == FAMILY and chain["table"] == table)
    ]


def open_foreign(drops: Iterable[tuple[str, str, str, str]], bridge: str, mark: str) -> list[str]:
    """Return commands that put rules for our bridge at the head of those chains."""
    commands = []
    for family, table, chain, hook in drops:
        where = f"insert rule {family} {table} {chain}"
        if hook == "forward":
            commands.append(f'{where} iifname "{bridge}" accept comment "{mark}"')
            commands.append(f'{where} oifname "{bridge}" accept comment "{mark}"')
        else:
            commands.append(f'{where} iifname "{bridge}" udp dport 53 accept comment "{mark}"')
            commands.append(f'{where} iifname "{bridge}" tcp dport 53 accept comment "{mark}"')
    return commands


def close_foreign(items: Sequence[dict[str, Any]], mark: str) -> list[str]:
    """Return commands that take our marked rules out of others' chains; `items` is `list ruleset`."""
    return [
        f"delete rule {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
        for item in items
        if (rule := item.get("rule")) and rule.get("comment") == mark
    ]
