"""The bridge and the cables to it: links made, checked and removed through rtnetlink.

Everything may be repeated: what is there already, as wanted, stays as it is.
"""

import errno
from ipaddress import IPv4Address, IPv4Network

from kestrel.base.errors import FailedPrecondition, Unavailable
from kestrel.linux import netlink
from kestrel.network import ipam
from kestrel.network.model import Endpoint

INSIDE = "eth0"
_LO_INDEX = 1  # the kernel makes lo first in every namespace


def ensure(links: netlink.Socket, name: str, network: IPv4Network, mtu: int) -> int:
    """Make the bridge, give it its address, bring it up; returns its index.

    Raises FailedPrecondition when the kernel has no bridges, or when a link of that name is something else.
    """
    found = links.link(name)
    if found is not None and found.kind != "bridge":
        raise FailedPrecondition(f"there is a link {name} that is no bridge", hint="rename it, or choose another name")
    gateway = ipam.Leases.gateway(network)
    if found is None:
        found = _make(links, name, gateway, mtu)
    has = [a for a in links.addresses() if a.index == found.index]
    if any(a.address != str(gateway) or a.prefix != network.prefixlen for a in has):
        raise FailedPrecondition(
            f"the bridge {name} has the address {has[0].address}/{has[0].prefix}, not {gateway}/{network.prefixlen}",
            hint=f"take the network down first, or remove the link: ip link del {name}",
        )
    if not has:
        links.run(netlink.add_address(found.index, str(gateway), network.prefixlen))
    if not found.up:
        links.run(netlink.set_up(found.index))
    return found.index


def _make(links: netlink.Socket, name: str, gateway: IPv4Address, mtu: int) -> netlink.Link:
    try:
        links.run(netlink.add_bridge(name, ipam.mac(gateway), mtu))
    except netlink.NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise FailedPrecondition(
                "this kernel has no bridges, so containers cannot have a network of their own",
                hint="load the module bridge, or use the networks host and none",
            ) from error
        raise
    found = links.link(name)
    if found is None:
        raise Unavailable(f"the bridge {name} vanished while it was made")
    links.attempt(netlink.without_ipv6(found.index))
    links.run(netlink.set_alias(found.index, "kestrel: the bridge of all sandboxes"))
    return found


def attach(links: netlink.Socket, endpoint: Endpoint, netns: int, bridge: int, mtu: int) -> None:
    """Lay the cable: a veth pair whose far end is `eth0` in the namespace, with address and default route.

    A cable of the same name from an attempt that was cut off is replaced.
    """
    make = netlink.add_veth(
        endpoint.link,
        peer=INSIDE,
        peer_mac=endpoint.mac,
        netns=netns,
        master=bridge,
        mtu=mtu,
    )
    batch = [make, netlink.without_ipv6(name=endpoint.link), netlink.set_hairpin(endpoint.link)]
    batch.append(netlink.set_up(name=endpoint.link))
    made, _, *raised = links.attempt(*batch)
    if made is not None and made.errno == errno.EEXIST:
        links.attempt(netlink.delete_link(endpoint.link))
        made, _, *raised = links.attempt(*batch)
    for error in (made, *raised):
        if error is not None:
            raise error
    with netlink.Socket(netns) as inside:
        found = inside.link(INSIDE)
        if found is None:
            raise Unavailable(f"{INSIDE} vanished from the sandbox while it was set up")
        inside.attempt(netlink.without_ipv6(found.index))
        inside.run(
            netlink.set_up(_LO_INDEX),
            netlink.add_address(found.index, endpoint.address, endpoint.prefix),
            netlink.set_up(found.index),
            netlink.add_default_route(found.index, endpoint.gateway),
        )


def detach(links: netlink.Socket, link: str) -> None:
    """Remove a cable; fine when the namespace took it along already."""
    error = links.attempt(netlink.delete_link(link))[0]
    if error is not None and error.errno != errno.ENODEV:
        raise error


def ports(links: netlink.Socket, bridge: str) -> list[str]:
    """Return the names of the links that are plugged into a bridge; empty when it does not exist."""
    found = links.link(bridge)
    return [link.name for link in links.links() if found is not None and link.master == found.index]


def others(links: netlink.Socket, bridge: str) -> list[str]:
    """Return the names of the other bridges of this host."""
    return [link.name for link in links.links() if link.kind == "bridge" and link.name != bridge]
