"""Flows the kernel remembers, made forgotten: ctnetlink by hand (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

Address translation is decided for the first packet of a flow and then remembered. A UDP flow has no end, so while
its packets keep coming it goes on to an address that was given back, or to no container at all when it began before
the port was published. Who changes where a UDP port leads calls `forget_udp`.
"""

import errno
import os
import socket
import struct

from kestrel.linux.netlink import NetlinkError, attribute, attributes

_HEADER = struct.Struct("=IHHII")
_NETFILTER = 12
_SUBSYSTEM = 1 << 8
_NEW, _GET, _DELETE = _SUBSYSTEM | 0, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ORIGINAL, _REPLY, _ID = 1, 2, 12
_IP, _PROTOCOL = 1, 2
_SOURCE4 = 1
_NUMBER, _DESTINATION_PORT = 1, 3
_NESTED = 0x8000
_IPV4 = struct.pack("=BBH", socket.AF_INET, 0, 0)
_BUFFER = 1 << 18


def forget_udp(address: str = "", ports: "frozenset[int]" = frozenset()) -> int:
    """Forget UDP flows that are answered from `address`, or were first sent to one of `ports`; returns how many.

    Raises NetlinkError when the kernel refuses.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as opened:
        opened.settimeout(10.0)
        opened.bind((0, 0))
        flows = [flow for flow in _dump(opened) if _meant(flow, address, ports)]
        for flow in flows:
            _delete(opened, flow)
        return len(flows)


def _meant(flow: dict[int, bytes], address: str, ports: frozenset[int]) -> bool:
    original, reply = attributes(flow.get(_ORIGINAL, b"")), attributes(flow.get(_REPLY, b""))
    protocol = attributes(original.get(_PROTOCOL, b""))
    if protocol.get(_NUMBER, b"") != bytes([socket.IPPROTO_UDP]):
        return False
    if address and attributes(reply.get(_IP, b"")).get(_SOURCE4) == socket.inet_aton(address):
        return True
    port = protocol.get(_DESTINATION_PORT, b"\0\0")
    return struct.unpack("!H", port)[0] in ports


def _dump(opened: socket.socket) -> list[dict[int, bytes]]:
    opened.send(_message(_GET, _REQUEST | _DUMP, _IPV4))
    flows: list[dict[int, bytes]] = []
    while True:
        for kind, body in _messages(opened.recv(_BUFFER)):
            if kind == _DONE:
                return flows
            if kind == _ERROR:
                _raise(body, "listing flows")
                return flows
            if kind == _NEW:
                flows.append(attributes(body[len(_IPV4) :]))


def _delete(opened: socket.socket, flow: dict[int, bytes]) -> None:
    # With the id, so that a flow that began anew under the same addresses since the listing is left alone.
    body = _IPV4 + attribute(_ORIGINAL | _NESTED, flow[_ORIGINAL]) + attribute(_ID, flow[_ID])
    opened.send(_message(_DELETE, _REQUEST | _ACK, body))
    for kind, answer in _messages(opened.recv(_BUFFER)):
        if kind == _ERROR:
            _raise(answer, "forgetting a flow", ignore=errno.ENOENT)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            break
        found.append((kind, data[at + _HEADER.size : at + length]))
        at += (length + 3) & ~3
    return found


def _raise(body: bytes, about: str, ignore: int = 0) -> None:
    number = -struct.unpack_from("=i", body)[0]
    if number not in (0, ignore):
        raise NetlinkError(number, f"{about}: {os.strerror(number).lower()}")
