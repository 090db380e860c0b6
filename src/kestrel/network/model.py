"""What a network is made of: values.

A *sandbox* (a pod, or the namespaces of one container) has one *endpoint* on the bridge: an address, a link, the
names others find it by and the ports it publishes.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from kestrel.base.errors import InvalidArgument, Unimplemented

PROTOCOLS = ("tcp", "udp")


class PortRequest(Protocol):
    """What a caller says about a port it wants published; any object with these four will do."""

    @property
    def container_port(self) -> int:
        """Return the port inside."""
        ...

    @property
    def host_port(self) -> int:
        """Return the port on the host, 0 for any free one."""
        ...

    @property
    def host_ip(self) -> str:
        """Return the host's address, empty for every one."""
        ...

    @property
    def protocol(self) -> str:
        """Return tcp or udp."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """A published port: `host_ip:host_port` leads to `container_port`. An empty `host_ip` is every address."""

    container_port: int
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "tcp"

    @classmethod
    def of(cls, wanted: PortRequest) -> "PortMapping":
        """Check and normalise a request. Raises InvalidArgument or Unimplemented that names the port."""
        text = f"port {wanted.host_ip or '*'}:{wanted.host_port or '?'}->{wanted.container_port}/{wanted.protocol}"
        protocol = wanted.protocol.lower()
        if protocol not in PROTOCOLS:
            raise Unimplemented(f"{text}: only tcp and udp ports can be published")
        if not 0 < wanted.container_port < 65536 or not 0 <= wanted.host_port < 65536:
            raise InvalidArgument(f"{text}: a port is a number from 1 to 65535")
        return cls(
            container_port=wanted.container_port,
            host_port=wanted.host_port,
            host_ip=_host_ip(wanted.host_ip, text),
            protocol=protocol,
        )

    @property
    def where(self) -> str:
        """Return `address:port/protocol` on the host, for people."""
        return f"{self.host_ip or '0.0.0.0'}:{self.host_port}/{self.protocol}"

    def overlaps(self, other: "PortMapping") -> bool:
        """Tell whether both claim the same port of the host."""
        same = (self.host_port, self.protocol) == (other.host_port, other.protocol)
        return same and (not self.host_ip or not other.host_ip or self.host_ip == other.host_ip)


def _host_ip(text: str, what: str) -> str:
    if text in ("", "0.0.0.0"):
        return ""
    if ":" in text:
        raise Unimplemented(f"{what}: IPv6 addresses of the host cannot be published on yet")
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise InvalidArgument(
            f"{what}: {text!r} is not an address", hint="write an IPv4 address of this host"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A sandbox's place in the network.

    `resolver` is what its resolv.conf should name; empty when we serve no names, then the host's resolvers are it.
    """

    sandbox: str
    address: str
    prefix: int
    gateway: str
    mac: str
    link: str
    """The host's end of the pair."""
    ports: tuple[PortMapping, ...] = ()
    names: tuple[str, ...] = ()
    resolver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`name` begins the name of every kernel object of ours: the bridge is `<name>0`, the firewall table `<name>`.

    `subnet` empty means: the first of our candidates that nothing on this host uses. With `open_foreign`, firewalls
    of others that drop what they do not know get a rule for our bridge (and lose it again when the network goes).
    """

    name: str = "kestrel"
    subnet: str = ""
    serve_names: bool = True
    domain: str = "cluster.local"
    """Names below it are never asked of other resolvers."""
    open_foreign: bool = True

    @property
    def bridge(self) -> str:
        """Return the bridge's name."""
        return f"{self.name}0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything `ready` does to the host, as data that can be printed before it is done."""

    bridge: str
    subnet: IPv4Network
    gateway: IPv4Address
    mtu: int
    sysctls: tuple[tuple[str, str], ...]
    """(name, value) in the order they are set."""
    ruleset: str
    """The nft commands, one transaction."""
    foreign: tuple[str, ...] = ()
    """nft commands that open other firewalls for our bridge."""
    notes: tuple[str, ...] = ()
    """What cannot be done, and what that costs."""

    def lines(self) -> list[str]:
        """Return the plan as text, one step per line, the ruleset last."""
        prefix = self.subnet.prefixlen
        steps = [f"link    bridge {self.bridge}, address {self.gateway}/{prefix}, mtu {self.mtu}"]
        steps += [f"sysctl  {name} = {value}" for name, value in self.sysctls]
        steps += [f"nft     {line}" for line in (*self.ruleset.splitlines(), *self.foreign)]
        steps += [f"note    {note}" for note in self.notes]
        return steps
