"""Ports of the host: reserved by a bound socket for as long as they are published.

Packets to a published port are led away by the firewall before any socket sees them. The socket is there so that
nobody else can take the port meanwhile, and so that a port somebody has already is noticed at once: the kernel is
asked, not guessed at. It never listens; what reaches it (over IPv6, which is not published) is refused, as on a closed
port.

Why the firewall and not a listener of ours in the daemon: connections then live in the kernel, survive the daemon, and
cost nothing per port or byte.
"""

import errno
import socket
from collections.abc import Sequence
from dataclasses import replace

from kestrel.base.errors import Conflict, FailedPrecondition, InvalidArgument, PermissionDenied
from kestrel.network import host
from kestrel.network.model import PortMapping

_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Reservations:
    """The ports we hold, by sandbox. Not for several threads at once."""

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[PortMapping, socket.socket]]] = {}

    def take(self, sandbox: str, ports: Sequence[PortMapping]) -> tuple[PortMapping, ...]:
        """Reserve ports for a sandbox, all or none; returns them with the numbers the host chose filled in.

        Raises Conflict naming the port and its owner, InvalidArgument for an address that is not this host's.
        """
        self.give_back(sandbox)
        held: list[tuple[PortMapping, socket.socket]] = []
        try:
            for port in ports:
                self._refuse_taken(port, [p for p, _ in held])
                opened = _bind(port)
                held.append((replace(port, host_port=opened.getsockname()[1]), opened))
        except BaseException:
            for _, opened in held:
                opened.close()
            raise
        if held:
            self._held[sandbox] = held
        return tuple(port for port, _ in held)

    def _refuse_taken(self, wanted: PortMapping, also: Sequence[PortMapping]) -> None:
        if not wanted.host_port:
            return
        if any(wanted.overlaps(port) for port in also):
            raise InvalidArgument(f"port {wanted.where} is asked for twice")
        for sandbox, held in self._held.items():
            if any(wanted.overlaps(port) for port, _ in held):
                raise Conflict(
                    f"port {wanted.where} is already published by sandbox {sandbox[:12]}",
                    hint="stop that one, or choose another host port",
                    port=wanted.host_port,
                    owner=sandbox,
                )

    def give_back(self, sandbox: str) -> None:
        """Let go of a sandbox's ports; fine when it has none."""
        for _, opened in self._held.pop(sandbox, ()):
            opened.close()

    def close(self) -> None:
        """Let go of everything."""
        for sandbox in list(self._held):
            self.give_back(sandbox)


def _bind(port: PortMapping) -> socket.socket:
    opened = socket.socket(socket.AF_INET, _TYPES[port.protocol] | socket.SOCK_CLOEXEC)
    try:
        if port.protocol == "tcp":
            # Connections of a former owner may linger in TIME_WAIT; they are no reason to refuse. Taken back after
            # the bind, so that nobody else gets in beside us the same way (`man 7 socket`, SO_REUSEADDR).
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((port.host_ip, port.host_port))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        opened.close()
        raise _refusal(port, error) from error
    return opened


def _refusal(port: PortMapping, error: OSError) -> Exception:
    match error.errno:
        case errno.EADDRINUSE:
            owner = host.port_owner(port.host_port, port.protocol)
            return Conflict(
                f"port {port.where} of this host is already in use" + (f" by {owner}" if owner else ""),
                hint="stop that process, or choose another host port",
                port=port.host_port,
                owner=owner,
            )
        case errno.EADDRNOTAVAIL:
            return InvalidArgument(
                f"{port.host_ip} is not an address of this host, so port {port.host_port} cannot be published on it",
                hint="leave the address out for all of them",
            )
        case errno.EACCES:
            return PermissionDenied(f"port {port.where} may not be bound: ports below 1024 need CAP_NET_BIND_SERVICE")
        case _:
            return FailedPrecondition(f"port {port.where} cannot be bound: {error.strerror}")
