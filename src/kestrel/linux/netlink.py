"""Links, addresses, routes: rtnetlink messages made by hand and sent several at a time.

`man 7 rtnetlink`, `man 7 netlink`, and the kernel's include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h. A
request is built as bytes by a function named after what it does; `Socket.run` sends any number of them in one write
and waits for all acknowledgements. The kernel works through the batch in order and does not stop at an error, so the
first error is the one that is raised, with the kernel's own words (extended ack) where it gives any.

A pod's veth pair is made with its far end straight in the pod's namespace (IFLA_NET_NS_FD inside the peer), which
saves the move; both ends are brought up afterwards.

Only the standard library's light modules: the runtime may import this.
"""

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Self

from kestrel.base.values import dataclass
from kestrel.linux.syscalls import setns

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _ROOT_MATCH, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_CAPPED, _ACK_TLVS = 0x100, 0x200
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_NESTED = 0x8000

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_IFALIAS = 26, 28, 20
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA, _IFLA_BRPORT_MODE = 4, 5, 4
_IFLA_INET6_ADDR_GEN_MODE, _GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_FLAGS, _IFA_RT_PRIORITY, _IFA_F_PERMANENT, _RT_SCOPE_UNIVERSE = 8, 9, 0x80, 0
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_IFF_UP = 1
_AF_INET, _AF_INET6 = socket.AF_INET, socket.AF_INET6
_SOL_NETLINK, _NETLINK_EXT_ACK, _NETLINK_CAP_ACK = 270, 11, 10
_NLMSGERR_ATTR_MSG = 1
_CLONE_NEWNET = 0x40000000
_BUFFER = 1 << 18


class NetlinkError(OSError):
    """A request the kernel refused; `str` tells which and why."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


@dataclass(frozen=True, slots=True)
class Request:
    """One message without sequence number: its type, flags and body, and words for an error about it."""

    kind: int
    flags: int
    body: bytes
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface. `kind` is `bridge`, `veth`, ... or empty; `master` is the index of its bridge, 0 without."""

    index: int
    name: str
    kind: str = ""
    master: int = 0
    up: bool = False
    mac: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An IPv4 address of a link."""

    index: int
    address: str
    prefix: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An IPv4 route: `destination/prefix` through link `index`; `gateway` is empty for what is directly reachable."""

    destination: str
    prefix: int
    index: int
    gateway: str
    table: int


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def add_bridge(name: str, mac: str, mtu: int = 0) -> Request:
    """Make a bridge. Its address is fixed, for otherwise it changes with the ports that come and go."""
    body = _LINK.pack(0, 0, 0, 0, 0) + (attribute(_IFLA_MTU, _number(mtu)) if mtu else b"")
    body += attribute(_IFLA_IFNAME, _text(name)) + attribute(_IFLA_ADDRESS, _mac(mac))
    body += attribute(_IFLA_LINKINFO | _NESTED, attribute(_IFLA_INFO_KIND, b"bridge"))
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"making bridge {name}")


def add_veth(name: str, *, peer: str, peer_mac: str, netns: int, master: int, mtu: int = 0) -> Request:
    """Make a veth pair: `name` here as a port of bridge `master`, `peer` in the namespace behind descriptor `netns`.

    The peer's index there has to be looked up afterwards: the kernel takes a wish for it only together with one for
    the near end's, which could be anybody's by then.
    """
    size = attribute(_IFLA_MTU, _number(mtu)) if mtu else b""
    far = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, _text(peer)) + size
    far += attribute(_IFLA_ADDRESS, _mac(peer_mac)) + attribute(_IFLA_NET_NS_FD, _number(netns))
    data = attribute(_IFLA_INFO_DATA | _NESTED, attribute(_VETH_INFO_PEER | _NESTED, far))
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, _text(name)) + size
    body += attribute(_IFLA_MASTER, _number(master))
    body += attribute(_IFLA_LINKINFO | _NESTED, attribute(_IFLA_INFO_KIND, b"veth") + data)
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"making veth {name}")


def set_up(index: int = 0, name: str = "") -> Request:
    """Bring a link up, by index or by name."""
    body = _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP)
    if name:
        body += attribute(_IFLA_IFNAME, _text(name))
    return Request(_NEWLINK, 0, body, f"bringing up {name or f'link {index}'}")


def without_ipv6(index: int = 0, name: str = "") -> Request:
    """Keep the kernel from giving a link a link-local IPv6 address; send it before the link is brought up.

    The kernel takes this for links that exist only, and refuses it (EAFNOSUPPORT) where it has no IPv6.
    """
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE]))
    spec = attribute(_IFLA_AF_SPEC | _NESTED, attribute(_AF_INET6 | _NESTED, mode))
    body = _LINK.pack(0, 0, index, 0, 0) + (attribute(_IFLA_IFNAME, _text(name)) if name else b"") + spec
    return Request(_NEWLINK, 0, body, f"keeping IPv6 off {name or f'link {index}'}")


def move_link(index: int, netns: int, name: str) -> Request:
    """Move a link to the namespace behind descriptor `netns`, where it is `name` (`%d` in it: a number that is free).

    It is down there and has lost its addresses; its MTU and hardware address it keeps.
    """
    body = _LINK.pack(0, 0, index, 0, 0)
    body += attribute(_IFLA_IFNAME, _text(name)) + attribute(_IFLA_NET_NS_FD, _number(netns))
    return Request(_NEWLINK, 0, body, f"moving link {index} to another namespace as {name}")


def set_hairpin(name: str) -> Request:
    """Let a bridge send frames back out of the port they came in by.

    Where bridged packets pass the IP firewall (net.bridge.bridge-nf-call-iptables), a container that calls its own
    published port is never routed: its frame, with the destination rewritten, has to go back the way it came.
    """
    data = attribute(_IFLA_INFO_SLAVE_DATA | _NESTED, attribute(_IFLA_BRPORT_MODE, b"\1"))
    info = attribute(_IFLA_LINKINFO | _NESTED, attribute(_IFLA_INFO_SLAVE_KIND, b"bridge\0") + data)
    return Request(
        _NEWLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, _text(name)) + info, f"hairpin {name}"
    )


def set_alias(index: int, alias: str) -> Request:
    """Give a link a description that `ip link` shows."""
    body = _LINK.pack(0, 0, index, 0, 0) + attribute(_IFLA_IFALIAS, alias.encode())
    return Request(_NEWLINK, 0, body, f"describing link {index}")


def delete_link(name: str) -> Request:
    """Remove a link; a veth takes its peer with it."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, _text(name))
    return Request(_DELLINK, 0, body, f"removing {name}")


def add_address(index: int, address: str, prefix: int) -> Request:
    """Give a link an IPv4 address; the kernel adds the route to its network."""
    raw = socket.inet_aton(address)
    host_bits = (1 << (32 - prefix)) - 1
    broadcast = struct.pack("!I", struct.unpack("!I", raw)[0] | host_bits)
    body = _ADDRESS.pack(_AF_INET, prefix, 0, 0, index)
    body += attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw) + attribute(_IFA_BROADCAST, broadcast)
    return Request(_NEWADDR, _CREATE | _EXCL, body, f"adding address {address}/{prefix}")


def give_again(address: bytes, index: int) -> Request:
    """Give a link an address as `Socket.lasting` returned it, with what was said of it (`man 7 rtnetlink`)."""
    family, prefix, flags, scope, _ = _ADDRESS.unpack_from(address)
    found = attributes(address[_ADDRESS.size :])
    kept = (_IFA_LOCAL, _IFA_ADDRESS, _IFA_BROADCAST, _IFA_FLAGS, _IFA_RT_PRIORITY)
    body = _ADDRESS.pack(family, prefix, flags, scope, index)
    body += b"".join(attribute(kind, found[kind]) for kind in kept if kind in found)
    return Request(_NEWADDR, _CREATE | _EXCL, body, f"giving link {index} its addresses again")


def add_default_route(index: int, gateway: str) -> Request:
    """Send everything without a route of its own through `gateway`."""
    # table main 254, protocol boot 3, scope universe 0, type unicast 1
    body = _ROUTE.pack(_AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
    body += attribute(_RTA_GATEWAY, socket.inet_aton(gateway)) + attribute(_RTA_OIF, _number(index))
    return Request(_NEWROUTE, _CREATE | _EXCL, body, f"adding the default route through {gateway}")


class Socket:
    """An rtnetlink socket of this thread's network namespace, or of the one behind descriptor `netns`.

    Not safe for two threads at once. Raises OSError when it cannot be opened.
    """

    def __init__(self, netns: int | None = None) -> None:
        self._socket = _open() if netns is None else _open_in(netns)
        self._sequence = 0

    def run(self, *requests: Request) -> None:
        """Carry out requests in order, in one write. Raises NetlinkError for the first the kernel refused."""
        errors = self.attempt(*requests)
        for error in errors:
            if error is not None:
                raise error

    def attempt(self, *requests: Request) -> list[NetlinkError | None]:
        """Carry out requests in order; returns for each None or why the kernel refused it."""
        first = self._sequence + 1
        message = b"".join(self._message(r.kind, r.flags | _ACK, r.body) for r in requests)
        self._socket.send(message)
        outcome: dict[int, NetlinkError | None] = {}
        while len(outcome) < len(requests):
            for kind, flags, sequence, body in self._receive():
                at = sequence - first
                if kind == _NLMSG_ERROR and 0 <= at < len(requests):
                    outcome[at] = _refusal(body, flags, requests[at].about)
        return [outcome[at] for at in range(len(requests))]

    def links(self) -> list[Link]:
        """Return every link."""
        return [_link(body) for body in self._dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), _NEWLINK)]

    def link(self, name: str) -> Link | None:
        """Return a link by name, None when there is none."""
        request = Request(
            _GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, _text(name)), f"reading {name}"
        )
        self._socket.send(self._message(request.kind, request.flags, request.body))
        for kind, flags, sequence, body in self._receive():
            if sequence != self._sequence:
                continue
            if kind == _NEWLINK:
                return _link(body)
            error = _refusal(body, flags, request.about)
            if error is not None and error.errno != errno.ENODEV:
                raise error
        return None

    def addresses(self) -> list[Address]:
        """Return every IPv4 address."""
        bodies = self._dump(_GETADDR, _ADDRESS.pack(_AF_INET, 0, 0, 0, 0), _NEWADDR)
        return [address for address in map(_address, bodies) if address is not None]

    def lasting(self, index: int) -> list[bytes]:
        """Return the addresses of a link, of any family, that were given for good and count everywhere.

        In the kernel's own form, for `give_again`.
        """
        bodies = self._dump(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), _NEWADDR)
        unpacked = [(body, _ADDRESS.unpack_from(body)) for body in bodies]
        return [
            body
            for body, (_, _, flags, scope, at) in unpacked
            if at == index and flags & _IFA_F_PERMANENT and scope == _RT_SCOPE_UNIVERSE
        ]

    def routes(self) -> list[Route]:
        """Return the IPv4 routes of every table."""
        return [
            _route(b)
            for b in self._dump(_GETROUTE, _ROUTE.pack(_AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), _NEWROUTE)
            if b[0] == _AF_INET
        ]

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return (
            _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._sequence, 0)
            + body
            + bytes(-len(body) % 4)
        )

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        return list(_messages(self._socket.recv(_BUFFER)))

    def _dump(self, kind: int, body: bytes, wanted: int) -> list[bytes]:
        self._socket.send(self._message(kind, _ROOT_MATCH, body))
        found: list[bytes] = []
        while True:
            for got, flags, sequence, content in self._receive():
                if sequence != self._sequence:
                    continue
                if got == _NLMSG_DONE:
                    return found
                if got == _NLMSG_ERROR:
                    error = _refusal(content, flags, "listing")
                    if error is not None:
                        raise error
                if got == wanted:
                    found.append(content)


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        opened.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        opened.settimeout(10.0)  # the kernel answers at once; a wait means an answer was lost
        opened.bind((0, 0))
    except OSError:
        opened.close()
        raise
    return opened


def _open_in(netns: int) -> socket.socket:
    """Open a socket in another namespace: in a thread of its own, which dies there, so none of ours can stay behind."""
    result: list[socket.socket | OSError] = []

    def visit() -> None:
        try:
            setns(netns, _CLONE_NEWNET)
            result.append(_open())
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=visit, name="kestrel-netns")
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by kind, without the nesting flag."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _refusal(body: bytes, flags: int, about: str) -> NetlinkError | None:
    """Read an acknowledgement: an error number, the request's header, and perhaps words (Documentation/netlink)."""
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return None
    said = ""
    if flags & _ACK_TLVS:
        skip = 4 + (_HEADER.size if flags & _CAPPED else struct.unpack_from("=I", body, 4)[0])
        said = attributes(body[skip:]).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")
    return NetlinkError(number, f"{about}: {os.strerror(number).lower()}" + (f" ({said})" if said else ""))


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body[_LINK.size :])
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        kind=info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        master=struct.unpack("=I", found[_IFLA_MASTER])[0] if _IFLA_MASTER in found else 0,
        up=bool(flags & _IFF_UP),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=struct.unpack("=I", found[_IFLA_MTU])[0] if _IFLA_MTU in found else 0,
    )


def _address(body: bytes) -> Address | None:
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body[_ADDRESS.size :])
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if family != _AF_INET or raw is None:
        return None
    return Address(index=index, address=socket.inet_ntoa(raw), prefix=prefix)


def _route(body: bytes) -> Route:
    prefix = body[1]
    found = attributes(body[_ROUTE.size :])
    return Route(
        destination=socket.inet_ntoa(found.get(_RTA_DST, bytes(4))),
        prefix=prefix,
        index=struct.unpack("=I", found[_RTA_OIF])[0] if _RTA_OIF in found else 0,
        gateway=socket.inet_ntoa(found[_RTA_GATEWAY]) if len(found.get(_RTA_GATEWAY, b"")) == 4 else "",
        table=struct.unpack("=I", found[_RTA_TABLE])[0] if _RTA_TABLE in found else body[4],
    )
