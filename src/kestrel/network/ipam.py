"""Addresses: which network is ours, and who has which address of it.

Leases are rows in SQLite, so that a daemon that starts again knows whose address is whose. An address that was given
back is the last to be given out again: somebody may still hold a connection, a name or a log line that means its
former owner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

CANDIDATES = tuple(
    [IPv4Network(f"10.{second}.0.0/16") for second in range(88, 128)]
    + [IPv4Network(f"172.{second}.0.0/16") for second in range(20, 32)]
    + [IPv4Network(f"192.168.{third}.0/20") for third in range(64, 256, 16)]
)

MIGRATIONS = {
    "network-1": """
        CREATE TABLE network_state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE network_endpoint (
            sandbox TEXT PRIMARY KEY,
            address INTEGER NOT NULL UNIQUE,
            names TEXT NOT NULL,
            ports TEXT NOT NULL
        ) WITHOUT ROWID
    """,
}


def choose(wanted: str, kept: IPv4Network | None, used: Sequence[IPv4Network]) -> IPv4Network:
    """Return the network to use: the one asked for, else the one kept from before, else a candidate nobody uses.

    Raises InvalidArgument for a network that cannot be used and FailedPrecondition when it, or all, collide.
    """
    if wanted:
        network = _parse(wanted)
        clash = _clash(network, used)
        if clash:
            raise FailedPrecondition(
                f"the network {network} is in use on this host: {clash}", hint="choose another, or leave it to us"
            )
        return network
    for network in ((kept,) if kept else ()) + CANDIDATES:
        if not _clash(network, used):
            return network
    raise FailedPrecondition(
        f"all {len(CANDIDATES)} candidate networks collide with routes of this host", hint="name a subnet that is free"
    )


def _parse(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(f"not an IPv4 network: {text!r} ({error})", hint="write it as 10.88.0.0/16") from None
    if network.prefixlen > 29:
        raise InvalidArgument(f"the network {network} is too small", hint="29 is the longest prefix that is useful")
    return network


def _clash(network: IPv4Network, used: Sequence[IPv4Network]) -> IPv4Network | None:
    return next((other for other in used if network.overlaps(other)), None)


def mac(address: IPv4Address) -> str:
    """Return the hardware address that goes with an address: locally administered, the same whoever has the lease.

    So a neighbour's ARP entry for a reused address is never wrong.
    """
    return "02:6b:" + address.packed.hex(":")


@dataclass(frozen=True, slots=True)
class Lease:
    """An address and whose it is, with the JSON texts the service keeps beside it."""

    sandbox: str
    address: IPv4Address
    names: str
    ports: str


class Leases:
    """The addresses given out of one network; the first is the gateway's."""

    def __init__(self, database: Database, network: IPv4Network) -> None:
        self._database = database
        self._first = int(network.network_address) + 2
        self._last = int(network.broadcast_address) - 1
        self.network = network

    @staticmethod
    def gateway(network: IPv4Network) -> IPv4Address:
        """Return the bridge's own address."""
        return network.network_address + 1

    def take(self, sandbox: str, names: str = "[]", ports: str = "[]") -> Lease:
        """Give a sandbox an address, the one it has if it has one. Raises ResourceExhausted when none is free."""
        with self._database.transaction(durable=False) as connection:
            row = connection.execute("SELECT address FROM network_endpoint WHERE sandbox = ?", (sandbox,)).fetchone()
            if row is None:
                address = self._next()
                connection.execute(
                    "INSERT INTO network_endpoint (sandbox, address, names, ports) VALUES (?, ?, ?, ?)",
                    (sandbox, address, names, ports),
                )
                connection.execute("INSERT OR REPLACE INTO network_state VALUES ('last-address', ?)", (str(address),))
            else:
                address = row["address"]
                connection.execute(
                    "UPDATE network_endpoint SET names = ?, ports = ? WHERE sandbox = ?", (names, ports, sandbox)
                )
        return Lease(sandbox, IPv4Address(address), names, ports)

    def _next(self) -> int:
        """Return the free address that follows the one given out last."""
        state = self._database.query("SELECT value FROM network_state WHERE key = 'last-address'")
        last = int(state[0]["value"]) if state else self._first - 1
        start = last + 1 if self._first <= last + 1 <= self._last else self._first
        rows = self._database.query(
            "SELECT address FROM network_endpoint WHERE address BETWEEN ? AND ?", (self._first, self._last)
        )
        taken = {row["address"] for row in rows}
        size = self._last - self._first + 1
        for step in range(size):
            candidate = self._first + (start - self._first + step) % size
            if candidate not in taken:
                return candidate
        raise ResourceExhausted(f"all {size} addresses of {self.network} are given out")

    def give_back(self, sandbox: str) -> bool:
        """End a lease; false when there was none."""
        sql = "DELETE FROM network_endpoint WHERE sandbox = ?"
        return self._database.execute(sql, (sandbox,), durable=False) > 0

    def all(self) -> list[Lease]:
        """Return every lease."""
        rows = self._database.query("SELECT sandbox, address, names, ports FROM network_endpoint ORDER BY address")
        return [Lease(row["sandbox"], IPv4Address(row["address"]), row["names"], row["ports"]) for row in rows]
