"""What the host's network looks like: read from the kernel, never changed, except for sysctls by `write_sysctl`.

Also the one sentence for each thing that is missing: cause, and what it costs.
"""

import os
import re
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from kestrel.base.errors import FailedPrecondition, PermissionDenied
from kestrel.linux import netlink

RESOLV_CONF = Path("/etc/resolv.conf")
_CAP_NET_ADMIN = 12


def require_rights(status: Path = Path("/proc/self/status")) -> None:
    """Raise PermissionDenied when this process may not change the network."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:") and not int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1:
            raise PermissionDenied(
                "this process may not change the network (it lacks CAP_NET_ADMIN), so bridge networks cannot be made",
                hint="run as root, or use the networks host and none",
            )


def used_networks(links: netlink.Socket, except_link: str) -> list[IPv4Network]:
    """Return every network the host can reach by a route, has an address in, or resolves names through."""
    ours = links.link(except_link)
    skip = ours.index if ours else -1
    used = [
        IPv4Network(f"{route.destination}/{route.prefix}", strict=False)
        for route in links.routes()
        if route.prefix and route.index != skip
    ]
    used += [
        IPv4Network(f"{address.address}/{address.prefix}", strict=False)
        for address in links.addresses()
        if address.index != skip
    ]
    used += [IPv4Network(server) for server in resolvers() if ":" not in server]
    return used


def outward_mtu(links: netlink.Socket) -> int:
    """Return the MTU of the link that the default route uses, 1500 without one.

    A bigger one on our side would make every connection find that out by itself, where ICMP is dropped never.
    """
    index = next((route.index for route in links.routes() if route.prefix == 0 and route.table == 254), 0)
    return next((link.mtu for link in links.links() if link.index == index and link.mtu), 1500)


def resolvers(path: Path = RESOLV_CONF) -> list[str]:
    """Return the name servers of the host (`man 5 resolv.conf`), at most three, as the C library reads them."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    found = re.findall(r"^\s*nameserver\s+([0-9a-fA-F.:]+)", text, re.MULTILINE)
    return [server for server in found if _is_address(server)][:3]


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        return False
    return True


def read_sysctl(name: str) -> str:
    """Return a sysctl's value (`net.ipv4.ip_forward`). Raises FileNotFoundError when the kernel has it not."""
    return _sysctl_path(name).read_text().strip()


def write_sysctl(name: str, value: str) -> None:
    """Set a sysctl. Raises FailedPrecondition that names it when the machine does not let us."""
    try:
        _sysctl_path(name).write_text(value)
    except OSError as error:
        raise FailedPrecondition(
            f"cannot set {name} = {value}: {error.strerror}; containers would have no way out of this host",
            hint=f"is /proc/sys read-only here? set it by hand: sysctl -w {name}={value}",
        ) from error


def _sysctl_path(name: str) -> Path:
    # Dots inside an interface's name are not separators; ours have none.
    return Path("/proc/sys") / name.replace(".", "/")


def legacy_iptables() -> bool:
    """Tell whether the old iptables has a filter table, which libnftables cannot see (`man 8 xtables-legacy`)."""
    try:
        return "filter" in Path("/proc/net/ip_tables_names").read_text().split()
    except OSError:
        return False


def port_owner(port: int, protocol: str) -> str:
    """Return `name (pid 123)` of a process that has a port of the host, empty when /proc does not show it."""
    inodes = set(_socket_inodes(port, protocol))
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, wanted):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            return f"{name} (pid {process.name})"
    return ""


def _socket_inodes(port: int, protocol: str) -> Iterator[str]:
    """Yield the inodes of sockets bound to a port (Documentation/networking/proc_net_tcp.rst)."""
    for table in (protocol, f"{protocol}6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            local, remote, inode = words[1], words[2], words[9]
            if int(local.rpartition(":")[2], 16) == port and remote.endswith(":0000") and inode != "0":
                yield inode


def _holds(process: Path, wanted: set[str]) -> bool:
    try:
        with os.scandir(process / "fd") as entries:
            return any(os.readlink(entry.path) in wanted for entry in entries)
    except OSError:
        return False  # it ended, or is not ours to look at


def own_address(address: str, links: netlink.Socket) -> bool:
    """Tell whether packets to an address end on this host."""
    if IPv4Address(address).is_loopback:
        return True
    return any(found.address == address for found in links.addresses())
